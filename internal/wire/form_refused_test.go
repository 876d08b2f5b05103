// SPDX-License-Identifier: MPL-2.0

package wire

import "strings"

const (
	boundary    = "----b0undary"
	formType    = "multipart/form-data; boundary=" + boundary
	textPart    = "Content-Disposition: form-data; name=\"prompt\"\r\n\r\na cat"
	filePart    = "Content-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n\x89PNG"
	disposition = "Content-Disposition: form-data; "
)

// formOf makes a body of parts.
func formOf(parts ...string) string {
	var s strings.Builder
	for _, p := range parts {
		s.WriteString("--" + boundary + "\r\n" + p + "\r\n")
	}
	return s.String() + "--" + boundary + "--\r\n"
}

// param makes a part with the parameters of its disposition.
func param(params string) string { return disposition + params + "\r\n\r\nx" }

// headed makes a field with a further header.
func headed(header string) string { return disposition + "name=\"prompt\"\r\n" + header + "\r\n\r\nx" }

// refusedForms are bodies that readers take differently, by what the refusal
// says.
func refusedForms() map[string][]string {
	const delimiter = "--" + boundary
	good := formOf(textPart, filePart)
	long := strings.Repeat("x", 200)
	return map[string][]string{
		"does not begin with the boundary": {
			"preamble\r\n" + good, "\r\n" + good, "\n" + good, " " + good, "-" + good, good[1:], "{}",
			strings.Replace(good, "b0undary", "B0undary", 1), strings.ReplaceAll(good, "b0undary", "other"),
		},
		"follows its closing delimiter": {
			good + "x", good + "\r\n", good + good, good[:len(good)-2] + "\n", good[:len(good)-2] + " \r\n", good[:len(good)-2] + "-\r\n",
			good[:len(good)-1], good + "\x00",
		},
		"begins with its boundary and goes on": {
			strings.Replace(good, delimiter+"\r\n", delimiter+" \r\n", 1), strings.Replace(good, delimiter+"\r\n", delimiter+"\n", 1),
			strings.Replace(good, delimiter+"\r\n", delimiter+"\t\r\n", 1), strings.Replace(good, delimiter+"\r\n", delimiter+"\r\r\n", 1),
			formOf(textPart + "\r\n" + delimiter + "X\r\nmore"), formOf(filePart + "\r\n" + delimiter + "X\r\nmore"),
			formOf(filePart + "\r\n" + delimiter + "-\r\nmore"), formOf(filePart + "\r\n" + delimiter + "\x00"),
		},
		"stands elsewhere": {
			formOf(filePart + "\n" + delimiter + "\r\n" + param(`name="model"`)), formOf(filePart + "\r" + delimiter + "\r\nmore"),
			formOf(filePart + delimiter + "--"), formOf(textPart + " " + delimiter), formOf(textPart + "\n" + delimiter + "--\n"),
			// Go's reader takes the first for two parts: an empty one ends without a line end.
			strings.Replace(formOf(param(`name="a"`), textPart), "x\r\n", "", 1),
			strings.Replace(formOf(disposition+"name=\"f\"; filename=\"f\"\r\n\r\nx", textPart), "x\r\n", "", 1),
			formOf(filePart + "\r\n-" + delimiter + "\r\n"),
		},
		"stands in the headers": {
			formOf(headed(delimiter + ": x")), formOf(param(`name="a"; filename="` + delimiter + `"`)), formOf(param(`name="` + delimiter + `"`)),
		},
		"has no headers": {formOf("\r\nvalue"), formOf("")},
		"control character, or a line that does not end in CRLF": {
			strings.Replace(good, "form-data", "form-\x00data", 1), strings.ReplaceAll(good, "prompt\"\r\n\r\n", "prompt\"\n\r\n\r\n"),
			formOf("Content-Disposition: form-data;\r\n\tname=\"prompt\"\r\n\r\nx"), formOf(headed("Content-Type: text/plain\rX: y")),
			formOf(headed("Content-Type:\ttext/plain")), formOf(param("name=\"a\nb\"")), formOf(param("name=\"a\rb\"")), formOf(param("name=\"a\x7fb\"")),
			formOf(headed("Content-Type: text/plain\n\nX: y")), formOf("\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx"),
		},
		"is no header": {
			formOf("Content-Disposition: form-data;\r\n name=\"prompt\"\r\n\r\nx"), formOf(headed("Content-Type : text/plain")),
			formOf(headed("no header")), formOf(headed(": empty")), formOf(" " + textPart), formOf(headed("Contént: x")),
		},
		"which is none of": {
			formOf(headed("Content-Encoding: gzip")), formOf(headed("X-Other: a")), formOf(headed("MIME-Version: 1.0")), formOf(headed("Content-Disposition2: a")),
		},
		"empty or ends in a space": {formOf(headed("Content-Type: ")), formOf(headed("Content-Type:")), formOf(headed("Content-Type: text/plain "))},
		"is not UTF-8": {
			formOf(param("name=\"a\"; filename=\"\xe3\"")), formOf(disposition + "name=\"a\"\r\n\r\n\xff"), formOf(disposition + "name=\"a\"\r\n\r\na\xc3"),
		},
		"has two content-disposition": {
			formOf(headed(`Content-Disposition: form-data; name="a"`)), formOf(headed(`CONTENT-disposition: form-data; name="prompt"`)),
		},
		"has two content-type":   {formOf(headed("Content-Type: text/plain\r\ncontent-type: text/plain"))},
		"no Content-Disposition": {formOf("Content-Type: text/plain\r\n\r\nx")},
		"is not form-data": {
			formOf("Content-Disposition: attachment; name=\"a\"\r\n\r\nx"), formOf("Content-Disposition: Form-Data; name=\"a\"\r\n\r\nx"),
			formOf("Content-Disposition: form-data2; name=\"a\"\r\n\r\nx"), formOf("Content-Disposition: form-data name=\"a\"\r\n\r\nx"),
			formOf("Content-Disposition: \"form-data\"; name=\"a\"\r\n\r\nx"),
		},
		"does not begin with form-data and a name": {
			formOf(param(`filename="a"; name="b"`)), formOf(param(`filename="a"`)), formOf(param(`Name="a"`)), formOf(param(`name*=utf-8''a`)),
			formOf(param(`filename*=utf-8''a; name="b"`)), formOf(param(`x="y"; name="b"`)), formOf(param(`name*0="a"`)),
		},
		"not of the form": {
			formOf("Content-Disposition: form-data\r\n\r\nx"), formOf(param(`name ="a"`)), formOf(param(` name="a"`)), formOf(param("name")),
			formOf(param(`name="a";`)), formOf(param(`name="a";; filename="b"`)), formOf(param(`"name"="a"`)), formOf(param(";")),
		},
		"value must be in quotes": {
			formOf(param(`name= "a"`)), formOf(param(`name=`)), formOf(param(`name=a b`)), formOf(param(`name=a[]`)),
			formOf(param(`name=model*x`)), formOf(param(`name=a'b`)), formOf(param(`name=a; filename=%41`)), formOf(param(`name="a"; filename=é.png`)),
			formOf(param(`name=a"b"`)),
		},
		"no closing quote": {formOf(param(`name="a`)), formOf(param(`name="a"; filename="b`))},
		"something after":  {formOf(param(`name="a"b`)), formOf(param(`name="a" ; filename="b"`)), formOf(param(`name="a", name="b"`))},
		"a quote after a backslash": {
			formOf(param(`name="a\"b"`)), formOf(param(`name="a"; filename="b\"c"`)), formOf(param(`name="a"; filename="b\\\"; x="`)),
		},
		"may not stand there": {
			formOf(param(`name="a"; name="b"`)), formOf(param(`name="a"; filename="b"; filename="c"`)), formOf(param(`name="a"; size="1"`)),
			formOf(param(`name="a"; name*=utf-8''b`)), formOf(param(`name="a"; filename*0="b"`)), formOf(param(`name="a"; FileName="b"`)),
			formOf(param(`name="a"; filename="b"; filename*=utf-8''b; filename*=utf-8''c`)),
			formOf(param(`name="a"; filename="b"; filename*=utf-8''b; filename="b"`)),
		},
		"filename that is empty, a dot": {
			formOf(param(`name="a"; filename=""`)), formOf(param(`name="a"; filename="."`)), formOf(param(`name="a"; filename="b/"`)),
			formOf(param(`name="a"; filename="C:\b\\"`)), formOf(param(`name="a"; filename=" .. "`)), formOf(param("name=\"a\"; filename=\"\u200b\ufeff\"")),
		},
		"a line separator": {
			formOf(param("name=\"a\"; filename=\"b\u2028\"")), formOf(param("name=\"a\"; filename=\"b\u2029c\"")),
			formOf(param("name=\"a\"; filename=\"b\u0085\"")),
		},
		"another parameter": {formOf(param(`name="a"; filename="b; name=model"`))},
		"as RFC 8187 writes it": {
			formOf(param(`name="a"; filename="b"; filename*="utf-8''b"`)), formOf(param(`name="a"; filename="b"; filename*=iso-8859-1''b`)),
			formOf(param(`name="a"; filename="b"; filename*=b`)), formOf(param(`name="a"; filename="b"; filename*=utf-8''`)),
			formOf(param(`name="a"; filename="b"; filename*=utf-8''%4`)), formOf(param(`name="a"; filename="b"; filename*=utf-8''%zz`)),
			formOf(param(`name="a"; filename="b"; filename*=utf-8''%+1`)), formOf(param(`name="a"; filename="b"; filename*=utf-8''a'b`)),
			formOf(param(`name="a"; filename="b"; filename*=utf-8'en'b`)), formOf(param(`name="a"; filename="b"; filename*=utf-8'b`)),
		},
		"filename* without a filename": {formOf(param(`name="a"; filename*=utf-8''b`)), formOf(param(`name="a"; filename*=utf-8''b; filename="b"`))},
		"is empty or longer":           {formOf(param(`name=""`)), formOf(param(`name="` + strings.Repeat("n", 257) + `"`))},
		"begins or ends with": {
			formOf(param(`name=" model"`)), formOf(param(`name="model "`)), formOf(param(`name="[model]"`)), formOf(param(`name=".model"`)),
			formOf(disposition + "name=\"model\"\r\n\r\nx\r\n"), formOf(disposition + "name=\"model\"\r\n\r\n gpt"),
			formOf(disposition + "name=\"model\"\r\n\r\ngpt\u00a0"), formOf(disposition + "name=\"n\"\r\n\r\n1\t2"),
		},
		"other than printable ASCII": {
			formOf(param(`name="é"`)), formOf(param(`name="mode%6c"`)), formOf(param(`name="a\b"`)), formOf(param(`name="a;b"`)),
			formOf(param(`name="=?utf-8?q?model?="`)), formOf(param(`name="a&b"`)), formOf(param(`name="a,b"`)),
		},
		"_charset_": {formOf(param(`name="_charset_"`)), formOf(param(`name="_CHARSET_"`))},
		"Content-Transfer-Encoding": {
			formOf(headed("Content-Transfer-Encoding: base64")), formOf(headed("Content-Transfer-Encoding: quoted-printable")), formOf(headed("Content-Transfer-Encoding: 7bit, 8bit")),
		},
		"parts of its own": {
			formOf(param("name=\"a\"\r\nContent-Type: multipart/mixed; boundary=x")),
			formOf(param("name=\"a\"; filename=\"b\"\r\nContent-Type: Multipart/Form-Data; boundary=x")),
			formOf(param("name=\"a\"; filename=\"b\"\r\nContent-Type: message/rfc822")),
		},
		"needs a filename": {
			formOf(headed("Content-Type: application/octet-stream")), formOf(headed("Content-Type: application/json")),
			formOf(headed("Content-Type: text/html")),
		},
		"type/subtype": {
			formOf(headed("Content-Type: text")), formOf(headed("Content-Type: text/plain charset=utf-8")), formOf(headed("Content-Type: /plain")),
			formOf(headed("Content-Type: text/")), formOf(headed("Content-Type: ;charset=utf-8")),
		},
		"other than charset=utf-8": {
			formOf(headed("Content-Type: text/plain; charset=utf-16")), formOf(headed("Content-Type: text/plain; charset=iso-8859-1")),
			formOf(headed("Content-Type: text/plain; format=flowed")),
		},
		"two parameters \"charset\"": {formOf(headed("Content-Type: text/plain; charset=utf-8; charset=utf-8"))},
		"is not a number": {
			formOf(headed("Content-Length: x")), formOf(headed("Content-Length: -1")), formOf(headed("Content-Length: +1")),
			formOf(headed("Content-Length: 1, 1")), formOf(headed("Content-Length: 0x1")), formOf(headed("Content-Length: 9223372036854775808")),
		},
		"but it has 1 bytes": {
			formOf(headed("Content-Length: 0")), formOf(headed("Content-Length: 2")), formOf(param("name=\"a\"; filename=\"b\"\r\nContent-Length: 2")),
		},
		"more than once": {
			formOf(textPart, textPart), formOf(textPart, strings.Replace(textPart, "prompt", "Prompt", 1)), formOf(filePart, param(`name="file"`)),
			formOf(param(`name="FILE"`), filePart), formOf(param(`name="a[b]"`), param(`name="a[B]"`)),
			formOf(param(`name="a[]"`), param(`name="a[]"; filename="b"`)),
		},
		"by itself and": {
			formOf(param(`name="a"`), param(`name="a[]"`)), formOf(param(`name="a[x]"`), param(`name="A"`)), formOf(param(`name="a.x"`), param(`name="a"`)),
			formOf(param(`name="file[x]"`), filePart),
		},
		"a NUL byte":        {formOf(disposition + "name=\"a\"\r\n\r\nx\x00y")},
		"a byte order mark": {formOf(disposition + "name=\"model\"\r\n\r\n\ufeffgpt")},
		"which servers may read as \"model\"": {
			formOf(param(`name="MODEL"`)), formOf(param(`name="model[]"`)), formOf(param(`name="model[0]"`)), formOf(param(`name="model.x"`)),
			formOf(param(`name="model [x]"`)), formOf(param(`name="model"; filename="a"`)), formOf(param(`name="Model[]"; filename="a"`)),
		},
		"which servers may read as \"max_tokens\"": {
			formOf(param(`name="max.tokens"`)), formOf(param(`name="max tokens"`)), formOf(param(`name="Max[Tokens"`)),
		},
		"too large: the headers":        {formOf(headed("Content-Type: " + strings.Repeat("x", maxPartHead)))},
		"too large: it has more than 4": {formOf(param(`name="a"`), param(`name="b"`), param(`name="c"`), param(`name="d"`), param(`name="e"`))},
		"too large: field \"a\" is longer": {
			formOf(disposition + "name=\"a\"\r\n\r\n" + long), formOf(disposition + "name=\"a\"\r\n\r\n" + long[:101]),
		},
	}
}
