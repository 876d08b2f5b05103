// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"fmt"
	"strings"
	"testing"
)

// framed is a request whose end may be seen in two places.
type framed struct {
	// text is sent; SMUGGLED stands for a request on the virtual key that is out of
	// reach, BODY for the usual body.
	text string
	// answers are the statuses, in order.
	answers []int
	// served is how many requests on the virtual key open are served.
	served int
	// then is what must become of the connection: "open", "closed", so that what
	// follows isn't taken for a request, or "" for either.
	then string
}

// framedRequests are what RFC 9112 §6 and §11.2 are about. head stands for the request line
// and the usual headers, without the blank line.
func framedRequests() map[string]framed {
	const chunked = "HEADTransfer-Encoding: chunked\r\n"
	body := fmt.Sprintf("%x\r\nBODY\r\n0\r\n\r\n", len(usualBody))
	cl := func(value string) framed {
		return framed{"HEADContent-Length: " + value + "\r\n\r\nBODYSMUGGLED", []int{400}, 0, "closed"}
	}
	te := func(headers string, status int) framed {
		return framed{"HEAD" + headers + "\r\n\r\n0\r\n\r\nSMUGGLED", []int{status}, 0, "closed"}
	}
	chunks := func(text string) framed {
		return framed{chunked + "\r\n" + text + "SMUGGLED", []int{400}, 0, "closed"}
	}
	return map[string]framed{
		"usual":            {"HEADContent-Length: LENGTH\r\n\r\nBODY", []int{200}, 1, "open"},
		"chunked":          {chunked + "\r\n" + body, []int{200}, 1, ""},
		"chunked, spelled": {"HEADTransfer-Encoding: \t ChUnKeD \t\r\n\r\n" + body, []int{200}, 1, ""},
		"chunk extension":  {chunked + "\r\n" + strings.Replace(body, "\r\n", ";a=\"b\"\r\n", 1), []int{200}, 1, ""},
		// The length counts for nothing beside chunks, and the connection ends, as RFC
		// 9112 §6.1 wants it: a proxy in between may have gone by the length.
		"both, the length is right": {"HEADContent-Length: TOEND\r\nTransfer-Encoding: chunked\r\n\r\n" + body + "SMUGGLED", []int{200}, 1, "closed"},
		"both, the other way round": {"HEADTransfer-Encoding: chunked\r\nContent-Length: TOEND\r\n\r\n" + body + "SMUGGLED", []int{200}, 1, "closed"},
		"both, the length is short": {"HEADContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + body + "SMUGGLED", []int{200}, 1, "closed"},

		"equal lengths":        {"HEADContent-Length: LENGTH\r\nContent-Length: LENGTH\r\n\r\nBODY", []int{200}, 1, "open"},
		"different lengths":    {"HEADContent-Length: LENGTH\r\nContent-Length: 0\r\n\r\nBODYSMUGGLED", []int{400}, 0, "closed"},
		"lengths, listed":      cl("LENGTH, LENGTH"),
		"length with a plus":   cl("+LENGTH"),
		"length with a minus":  cl("-1"),
		"length in hex":        cl("0x3e"),
		"length with a space":  cl("6 2"),
		"length of a fraction": cl("62.0"),
		"length of nothing":    cl(""),
		"length past 64 bits":  cl("18446744073709551678"),
		"length, folded":       cl("6\r\n 2"),

		"xchunked":                    te("Transfer-Encoding: xchunked", 501),
		"x, chunked":                  te("Transfer-Encoding: x, chunked", 501),
		"chunked, identity":           te("Transfer-Encoding: chunked, identity", 501),
		"chunked twice":               te("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 501),
		"chunked and then another":    te("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 501),
		"gzip, chunked":               te("Transfer-Encoding: gzip, chunked", 501),
		"in quotes":                   te("Transfer-Encoding: \"chunked\"", 501),
		"a vertical tab":              te("Transfer-Encoding: \vchunked", 400),
		"a NUL":                       te("Transfer-Encoding: chunked\x00", 400),
		"a space before the colon":    te("Transfer-Encoding : chunked", 400),
		"a tab before the colon":      te("Transfer-Encoding\t: chunked", 400),
		"a space before the name":     te("X: y\r\n Transfer-Encoding: chunked\r\nContent-Length : 0", 400),
		"a bare CR":                   te("X: y\rTransfer-Encoding: chunked", 400),
		"length behind a bare CR":     te("X: y\rContent-Length: 5", 400),
		"an underscore for a hyphen":  {"HEADTransfer_Encoding: chunked\r\nContent-Length: LENGTH\r\n\r\nBODY", []int{200}, 1, "open"},
		"a name that isn't a token":   te("Transfer-Encoding;: chunked", 400),
		"an encoding with a length 0": {"HEADTransfer-Encoding: xchunked\r\nContent-Length: LENGTH\r\n\r\nBODYSMUGGLED", []int{501}, 0, "closed"},

		"chunk of negative size":     chunks("-1\r\nBODY\r\n0\r\n\r\n"),
		"chunk with 0x":              chunks("0x3e\r\nBODY\r\n0\r\n\r\n"),
		"chunk past 64 bits":         chunks("1000000000000003e\r\nBODY\r\n0\r\n\r\n"),
		"chunk with a bare LF":       chunks("3e\nBODY\n0\n\n"),
		"chunk extension, bare LF":   chunks("3e;x\nBODY\r\n0\r\n\r\n"),
		"chunk longer than it says":  chunks("3e\r\nBODYxx\r\n0\r\n\r\n"),
		"chunk without size":         chunks("\r\nBODY\r\n0\r\n\r\n"),
		"chunk extensions, a flood":  chunks("3e;" + strings.Repeat("x", 20_000) + "\r\nBODY\r\n0\r\n\r\n"),
		"body behind the last chunk": {chunked + "\r\n0\r\n\r\nBODYx\r\n\r\n", []int{400}, 0, "closed"},

		// A request without a body that brings one: it isn't the next request.
		"GET with a request as its body": {"GETHEADContent-Length: SMUGGLEDLENGTH\r\n\r\nSMUGGLED", []int{400}, 0, "open"},
		"GET with chunks":                {"GETHEADTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{400}, 0, ""},
		"no credential, but a body":      {"NOBODYHEADContent-Length: SMUGGLEDLENGTH\r\n\r\nSMUGGLED", []int{401}, 0, "open"},
		"longer than its length":         {"HEADContent-Length: LENGTH\r\n\r\nBODYgarbage\r\n\r\n", []int{200, 400}, 1, "closed"},
		"a next one without credential":  {"HEADContent-Length: LENGTH\r\n\r\nBODYPOST CHATSHUT HTTP/1.1\r\nHost: x\r\nContent-Length: LENGTH\r\n\r\nBODY", []int{200, 401}, 1, "open"},
		"HTTP/1.0 with chunks":           {"OLDHEADTransfer-Encoding: chunked\r\n\r\n" + body + "SMUGGLED", []int{400}, 0, "closed"},
		"bare LF throughout":             {"LFHEADContent-Length: LENGTH\n\nBODY", []int{200}, 1, "open"},
	}
}

func (a *attacked) smuggling(t *testing.T) {
	head := strings.TrimSuffix(a.line("POST", a.chatAt("open")), "\r\n")
	for name, f := range framedRequests() {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			text := strings.NewReplacer(
				"SMUGGLEDLENGTH", fmt.Sprint(len(a.smuggled())), "LENGTH", fmt.Sprint(len(usualBody)),
				"NOBODYHEAD", strings.Replace(head, "X-Vault-Token", "X-None", 1), "GETHEAD", strings.Replace(head, "POST", "GET", 1),
				"OLDHEAD", strings.Replace(head, "HTTP/1.1", "HTTP/1.0", 1), "LFHEAD", strings.ReplaceAll(head, "\r\n", "\n"),
				"HEAD", head, "CHATSHUT", a.chatAt("shut"), "SMUGGLED", a.smuggled(), "BODY", usualBody,
			).Replace(f.text)
			_, all, _ := strings.Cut(text, "\r\n\r\n")
			text = strings.Replace(text, "TOEND", fmt.Sprint(len(all)), 1)
			a.reached(t, f.served, func() {
				answers, closed := a.raw(t, text)
				var statuses []int
				for _, answer := range answers {
					statuses = append(statuses, answer.status)
				}
				if fmt.Sprint(statuses) != fmt.Sprint(f.answers) || closed && f.then == "open" || !closed && f.then == "closed" {
					t.Errorf("the answers were %v and the connection was closed: %t, want %v and %s", statuses, closed, f.answers, f.then)
				}
			})
			a.serves(t)
		})
	}
	// Vault was never asked about the one that is out of reach.
	if asked := a.asks(t, a.mount+"/proxy/shut"); len(asked) != 0 {
		t.Errorf("Vault was asked about it %d times", len(asked))
	}
}
