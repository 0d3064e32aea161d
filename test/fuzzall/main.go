// Command fuzzall runs every fuzz target of the project, one after the other, for
// the same time each.
package main

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

var target = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

func main() {
	each := flag.Duration("fuzztime", 2*time.Minute, "how long each target runs")
	flag.Parse()
	if err := run(*each); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(each time.Duration) error {
	n := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range target.FindAllStringSubmatch(string(data), -1) {
			n++
			fmt.Printf("== ./%s %s\n", filepath.Dir(path), m[1])
			cmd := exec.Command("go", "test", "./"+filepath.Dir(path), "-run", "^$", "-fuzz", "^"+m[1]+"$", "-fuzztime", each.String())
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("./%s %s: %w", filepath.Dir(path), m[1], err)
			}
		}
		return nil
	})
	if err == nil {
		fmt.Printf("fuzz: %d targets, no finding\n", n)
	}
	return err
}
