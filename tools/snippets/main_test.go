// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The documents that have snippets.
var documents = []string{"docs/clients.md"}

func TestDocuments_ShowTheExamplesAsTheyAre(t *testing.T) {
	if err := run("../..", documents, true); err != nil {
		t.Error(err)
	}
}

const example = `import os

# docs:begin first
x = 1

if x:
    # docs:begin second
    print(x)
      # a comment
    # docs:end
`

func TestFill_ReplacesCodeBlocks(t *testing.T) {
	root := t.TempDir()
	write(t, root, "e.py", strings.Replace(example, "if x:", "# docs:end\nif x:", 1))
	old := "# Title\n\n<!-- snippet: e.py first -->\n```python\nold\nlines\n```\n\n<!-- snippet: e.py second -->\n```python\n```\ntext\n```\nother\n```\n"
	want := "# Title\n\n<!-- snippet: e.py first -->\n```python\nx = 1\n```\n\n<!-- snippet: e.py second -->\n```python\nprint(x)\n  # a comment\n```\ntext\n```\nother\n```\n"
	write(t, root, "d.md", old)
	if err := run(root, []string{"d.md"}, true); err == nil || !strings.Contains(err.Error(), "make docs") {
		t.Errorf("an old document is accepted: %v", err)
	}
	for range 2 {
		if err := run(root, []string{"d.md"}, false); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(filepath.Join(root, "d.md"))
	if err != nil || string(got) != want {
		t.Errorf("%v, it is\n%s\nwant\n%s", err, got, want)
	}
	if err := run(root, []string{"d.md"}, true); err != nil {
		t.Error(err)
	}
}

func TestSnippet_JoinsItsPartsAndLeavesOthersOut(t *testing.T) {
	root := t.TempDir()
	write(t, root, "e.mjs", "// docs:begin a\nimport x;\n\n// docs:end a\nimport y;\n\n// docs:begin b\n// docs:begin a\nx();\n// docs:end b\nz();\n// docs:end a\n")
	for name, want := range map[string]string{"a": "import x;\n\nx();\nz();\n", "b": "x();\n"} {
		if got, err := snippet(root, "e.mjs "+name); err != nil || got != want {
			t.Errorf("%s: %q %v, want %q", name, got, err, want)
		}
	}
}

func TestFill_SaysWhatIsWrong(t *testing.T) {
	root := t.TempDir()
	write(t, root, "e.py", example)
	write(t, root, "within.py", "# docs:begin a\n1\n# docs:begin a\n2\n# docs:end\n")
	for document, says := range map[string]string{
		"<!-- snippet: e.py none -->\n```\n```\n":     `no snippet "none"`,
		"<!-- snippet: gone.py -->\n```\n```\n":       "gone.py",
		"<!-- snippet: twice.py a -->\n```\n```\n":    "twice",
		"<!-- snippet: e.py second -->\ntext\n":       "no code block",
		"<!-- snippet: e.py second -->\n```\nnever\n": "doesn't end",
	} {
		if _, err := fill(root, document); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", document, err, says)
		}
	}
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
