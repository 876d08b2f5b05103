// SPDX-License-Identifier: MPL-2.0

// Command snippets copies parts of the examples into the documentation, so that what
// is shown is what is tested. In an example, a part is what is between the lines
//
//	# docs:begin NAME        (or // docs:begin NAME)
//	# docs:end NAME
//
// Several parts of a name are joined by an empty line. In a document, the code block after the line
//
//	<!-- snippet: PATH NAME -->
//
// is replaced by it, or by the whole file if there is no NAME. It is run in the root
// of the repository, with the documents as arguments; with -check it changes nothing,
// and fails if a document isn't up to date.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	check := flag.Bool("check", false, "change nothing; fail if a document isn't up to date")
	flag.Parse()
	if err := run(".", flag.Args(), *check); err != nil {
		fmt.Fprintln(os.Stderr, "snippets:", err)
		os.Exit(1)
	}
}

func run(root string, documents []string, check bool) error {
	for _, name := range documents {
		path := filepath.Join(root, name)
		old, err := os.ReadFile(path) //nolint:gosec // the caller's choice
		if err != nil {
			return fmt.Errorf("reading a document: %w", err)
		}
		now, err := fill(root, string(old))
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		case bytes.Equal(old, []byte(now)):
		case check:
			return fmt.Errorf("%s isn't up to date with the examples; run make docs", name)
		default:
			if err := os.WriteFile(path, []byte(now), 0o644); err != nil { //nolint:gosec // a document is for everybody
				return fmt.Errorf("writing a document: %w", err)
			}
		}
	}
	return nil
}

const (
	marker = "<!-- snippet: "
	fence  = "```"
)

// fill returns the document with its snippets as the examples have them.
func fill(root, document string) (string, error) {
	var out strings.Builder
	lines := strings.SplitAfter(document, "\n")
	for i := 0; i < len(lines); i++ {
		out.WriteString(lines[i])
		what, is := strings.CutPrefix(lines[i], marker)
		if !is {
			continue
		}
		what = strings.TrimSuffix(strings.TrimSpace(what), " -->")
		text, err := snippet(root, what)
		if err != nil {
			return "", err
		}
		if i++; i >= len(lines) || !strings.HasPrefix(lines[i], fence) {
			return "", fmt.Errorf("no code block follows %s", strings.TrimSpace(lines[i-1]))
		}
		out.WriteString(lines[i])
		out.WriteString(text)
		i++
		for i < len(lines) && strings.TrimRight(lines[i], "\r\n") != fence {
			i++
		}
		if i >= len(lines) {
			return "", fmt.Errorf("the code block of %q doesn't end", what)
		}
		out.WriteString(lines[i])
	}
	return out.String(), nil
}

// snippet returns the part of a file, "PATH NAME", or all of it, "PATH".
func snippet(root, what string) (string, error) {
	path, name, _ := strings.Cut(what, " ")
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path))) //nolint:gosec // the document says which
	if err != nil {
		return "", fmt.Errorf("reading an example: %w", err)
	}
	if name == "" {
		return ending(string(text)), nil
	}
	var part []string
	inside := false
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		comment := len(words) > 1 && (words[0] == "#" || words[0] == "//")
		switch {
		case comment && words[1] == "docs:begin" && len(words) == 3 && words[2] == name:
			if inside {
				return "", fmt.Errorf("%s: the snippet %q begins within itself", path, name)
			}
			inside = true
			for len(part) > 0 && strings.TrimSpace(part[len(part)-1]) == "" {
				part = part[:len(part)-1]
			}
			if part != nil {
				part = append(part, "\n")
			}
		case comment && words[1] == "docs:end" && (len(words) == 2 || words[2] == name):
			inside = false
		case comment && (words[1] == "docs:begin" || words[1] == "docs:end"): // another's
		case inside:
			part = append(part, line)
		}
	}
	if inside {
		return "", fmt.Errorf("%s: the snippet %q doesn't end", path, name)
	}
	if part == nil {
		return "", fmt.Errorf("%s has no snippet %q", path, name)
	}
	return ending(outdent(part)), nil
}

func ending(text string) string { return strings.TrimRight(text, "\n") + "\n" }

// outdent removes the indentation that all lines share.
func outdent(lines []string) string {
	shared := -1
	for _, line := range lines {
		if text := strings.TrimLeft(line, " \t"); strings.TrimSpace(text) != "" {
			if n := len(line) - len(text); shared < 0 || n < shared {
				shared = n
			}
		}
	}
	var out strings.Builder
	for _, line := range lines {
		if strings.TrimSpace(line) == "" {
			out.WriteString("\n")
			continue
		}
		out.WriteString(line[max(shared, 0):])
	}
	return out.String()
}
