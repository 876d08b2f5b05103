// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// formPart is what the headers of a part say.
type formPart struct {
	name   string
	file   bool
	length int64 // of its content, in bytes, as Content-Length says; or -1
}

// parsePart reads a part's headers without the CRLF of the last. Of the headers
// that RFC 7578 §4.8 knows each may stand there once, and Content-Length, which
// some clients send; all others some reader might heed.
func parsePart(head string) (formPart, error) {
	seen := map[string]string{}
	for line := range strings.SplitSeq(head, "\r\n") {
		name, value, err := parseHeader(line)
		if err != nil {
			return formPart{}, err
		}
		if _, again := seen[name]; again {
			return formPart{}, fmt.Errorf("a part has two %s headers", name)
		}
		seen[name] = value
	}
	disposition, ok := seen["content-disposition"]
	if !ok {
		return formPart{}, errors.New("a part has no Content-Disposition header")
	}
	p, err := parseDisposition(disposition)
	if err != nil {
		return p, err
	}
	if value, ok := seen["content-type"]; ok {
		if err := checkPartType(value, p.file); err != nil {
			return p, fmt.Errorf("the Content-Type of part %q %w", p.name, err)
		}
	}
	p.length = -1
	if value, ok := seen["content-length"]; ok {
		if p.length, err = parseLength(value); err != nil {
			return p, fmt.Errorf("the Content-Length of part %q is not a number", p.name)
		}
	}
	switch encoding := strings.ToLower(seen["content-transfer-encoding"]); encoding {
	case "", "7bit", "8bit", "binary":
		return p, nil
	}
	return p, fmt.Errorf("part %q has a Content-Transfer-Encoding other than 7bit, 8bit and binary", p.name)
}

// parseHeader returns a header's name in lower case, and its value, which isn't
// empty.
func parseHeader(line string) (name, value string, err error) {
	for i := range len(line) {
		if line[i] < ' ' || line[i] == 0x7f { // a lone CR or LF among them, a tab, a folded line
			return "", "", errors.New("the headers of a part hold a control character, or a line that does not end in CRLF")
		}
	}
	name, value, found := strings.Cut(line, ":")
	if !found || token(name) != len(name) || name == "" {
		return "", "", errors.New("a line in the headers of a part is no header")
	}
	name, value = strings.ToLower(name), strings.TrimLeft(value, " ")
	switch name {
	case "content-disposition", "content-type", "content-length", "content-transfer-encoding":
	default:
		return "", "", fmt.Errorf("a part has a header %.64q, which is none of Content-Disposition, Content-Type, Content-Length and Content-Transfer-Encoding", name)
	}
	if value == "" || strings.HasSuffix(value, " ") {
		return "", "", fmt.Errorf("a %s header in a part is empty or ends in a space", name)
	}
	if !utf8.ValidString(value) {
		return "", "", fmt.Errorf("a %s header in a part is not UTF-8", name)
	}
	return name, value, nil
}

// parseLength reads a Content-Length, which is digits only.
func parseLength(value string) (int64, error) {
	n, err := strconv.ParseUint(value, 10, 63) // no sign, and no underscores in base 10
	return int64(n), err
}

// parseDisposition reads a Content-Disposition header (RFC 7578 §4.2). name
// comes first, because there are readers that search for `name=`, which is also
// the end of `filename=`; that is the order in which clients write them.
func parseDisposition(value string) (formPart, error) {
	rest, ok := strings.CutPrefix(value, "form-data")
	if !ok || rest != "" && rest[0] != ';' {
		return formPart{}, errors.New("a part's Content-Disposition is not form-data")
	}
	p, rest, err := nextParam(rest)
	if err != nil {
		return formPart{}, fmt.Errorf("a part's Content-Disposition %w", err)
	}
	if p.name != "name" {
		return formPart{}, errors.New("a part's Content-Disposition does not begin with form-data and a name")
	}
	part := formPart{name: p.value}
	if err := checkName(part.name); err != nil {
		return part, err
	}
	last := "name"
	for rest != "" {
		if p, rest, err = nextParam(rest); err != nil {
			return part, fmt.Errorf("the Content-Disposition of part %q %w", part.name, err)
		}
		if err := checkFileName(last, p); err != nil {
			return part, fmt.Errorf("the Content-Disposition of part %q %w", part.name, err)
		}
		part.file, last = true, p.name
	}
	return part, nil
}

// checkFileName checks what follows a part's name: a filename, which makes it a
// file, and then maybe a filename* (which RFC 7578 §4.2 forbids and some clients
// add). To widespread readers (Python's python-multipart, Node's formidable) a
// part with filename* alone is a field, and to others one whose filename is
// empty, or names a directory. last is the parameter before.
func checkFileName(last string, p formParam) error {
	switch {
	case p.name == "filename" && last == "name":
		if base := p.value[strings.LastIndexAny(p.value, `/\`)+1:]; !strings.ContainsFunc(base, isNaming) {
			return errors.New("has a filename that is empty, a dot or a directory")
		}
		if strings.ContainsFunc(p.value, breaksLine) {
			return errors.New("has a filename with a control character or a line separator")
		}
		if strings.Contains(p.value, ";") && strings.Contains(p.value, "=") {
			return errors.New("has a filename in which some servers would see another parameter; rename the file")
		}
		return nil
	case p.name == "filename*" && last == "filename":
		if p.quoted || !isExtValue(p.value) {
			return errors.New("has a filename* that is not UTF-8 as RFC 8187 writes it, without a language")
		}
		return nil
	case p.name == "filename*" && last == "name":
		return errors.New("has a filename* without a filename, which makes a file for some servers only; send filename")
	}
	return fmt.Errorf("has a parameter %.64q that may not stand there; only name, filename and filename* may, once and in this order", p.name)
}

// isNaming says whether r alone may be a file's name.
func isNaming(r rune) bool { return r != '.' && unicode.IsGraphic(r) && !unicode.IsSpace(r) }

// breaksLine says whether r ends a line for Unicode, as in the regular
// expressions by which some readers (formidable) find a file name, or is a
// control character.
func breaksLine(r rune) bool { return r == '\u2028' || r == '\u2029' || unicode.IsControl(r) }

// isExtValue says whether s is of the charset utf-8, without a language, and
// percent-encoded (RFC 8187 §3.2).
func isExtValue(s string) bool {
	const charset = "utf-8''"
	if len(s) <= len(charset) || !strings.EqualFold(s[:len(charset)], charset) {
		return false
	}
	s = s[len(charset):]
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '%':
			if _, err := strconv.ParseUint(s[i+1:min(len(s), i+3)], 16, 8); err != nil || i+3 > len(s) {
				return false
			}
			i += 2
		case strings.IndexByte("*'", s[i]) >= 0 || !isToken(s[i]):
			return false
		}
	}
	return true
}
