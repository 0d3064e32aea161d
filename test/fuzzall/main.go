// Command fuzzall runs every fuzz target of the project, one after the other, for the same
// time each. With -keep N it leaves so many of the inputs that reached something new in the
// target's testdata/fuzz, where `go test` runs them as cases.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

var target = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

// mostBytes bounds an input that is kept: a corpus is read by people, too.
const mostBytes = 2 << 10

func main() {
	each := flag.Duration("fuzztime", 2*time.Minute, "how long each target runs")
	keep := flag.Int("keep", 0, "how many inputs of each target are kept in the project")
	flag.Parse()
	if err := run(*each, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// A fuzzTarget is one function of a package's tests.
type fuzzTarget struct{ dir, name string }

func run(each time.Duration, keep int) error {
	all, err := targets()
	if err != nil {
		return err
	}
	cache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return fmt.Errorf("find the folder of fuzzed inputs: %w", err)
	}
	var failed []string
	for i, t := range all {
		fmt.Printf("== %d of %d: ./%s %s\n", i+1, len(all), t.dir, t.name)
		cmd := exec.Command("go", "test", "-C", t.dir, ".", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", each.String())
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			failed = append(failed, "./"+t.dir+" "+t.name)
			continue
		}
		if err := t.keep(filepath.Join(strings.TrimSpace(string(cache)), "fuzz"), keep); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d targets have a finding: %s", len(failed), len(all), strings.Join(failed, ", "))
	}
	fmt.Printf("fuzz: %d targets, no finding\n", len(all))
	return nil
}

// targets finds the fuzz targets below the working directory.
func targets() (all []fuzzTarget, err error) {
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range target.FindAllSubmatch(text, -1) {
			all = append(all, fuzzTarget{filepath.Dir(path), string(m[1])})
		}
		return err
	})
	return all, err
}

// keep copies n of the inputs that go found worth keeping, small ones and large ones alike.
func (t fuzzTarget) keep(cache string, n int) error {
	from, err := filepath.Glob(filepath.Join(cache, "*", "*", "*", t.dir, t.name, "*"))
	if err != nil || n == 0 {
		return err
	}
	type input struct {
		path string
		size int64
	}
	var inputs []input
	for _, path := range from {
		if info, err := os.Stat(path); err == nil && info.Size() <= mostBytes {
			inputs = append(inputs, input{path, info.Size()})
		}
	}
	slices.SortFunc(inputs, func(a, b input) int {
		return cmp.Or(cmp.Compare(a.size, b.size), cmp.Compare(a.path, b.path))
	})
	to := filepath.Join(t.dir, "testdata", "fuzz", t.name)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for i := range min(n, len(inputs)) {
		in := inputs[i*len(inputs)/min(n, len(inputs))]
		text, err := os.ReadFile(in.path)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, filepath.Base(in.path)), text, 0o644)
		}
		if err != nil {
			return fmt.Errorf("keep an input of %s: %w", t.name, err)
		}
	}
	return nil
}
