// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"fmt"
	"os"

	"vault-plugin-secrets-portkey/bench/internal/report"
)

// Where the results go, from the root of the repository.
const (
	resultsFile = "bench/results.json"
	pictureFile = "bench/results.svg"
	pageFile    = "docs/performance.md"
)

// write writes the results. The page and the picture are changed only by a run
// that has all they show.
func write(run *report.Run, all bool) error {
	text, err := report.JSON(run.Rows)
	if err != nil {
		return err
	}
	if err := writeFile(resultsFile, text); err != nil {
		return err
	}
	if !all {
		fmt.Println("Not all targets were asked for: the tables in", pageFile, "and", pictureFile, "stay as they were.")
		return nil
	}
	if picture, ok := run.SVG(); ok {
		if err := writeFile(pictureFile, []byte(picture)); err != nil {
			return err
		}
	}
	page, err := os.ReadFile(pageFile)
	if err != nil {
		return err
	}
	replaced, ok := report.Replace(string(page), run.Markdown())
	if !ok {
		fmt.Println(pageFile, "has no place for the tables, they would be:")
		fmt.Printf("\n%s\n", run.Markdown())
		return nil
	}
	return writeFile(pageFile, []byte(replaced))
}

func writeFile(path string, text []byte) error {
	if err := os.WriteFile(path, text, 0o644); err != nil { //nolint:gosec // for everybody to read
		return err
	}
	fmt.Println("wrote", path)
	return nil
}
