// Command report reads the JSON of `go test -json` on standard input and prints what
// passed in a form that a script can read, the counts on its last line.
//
//	report spec      which rows of the feature surface passing cases prove
//	report diff      our proxy against a real Envoy
//	report replay E  the acceptance scenarios on engine E
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/lateen-mesh/lateen/test/material"
)

// maxIDs is how many rows one case may claim to prove.
const maxIDs = 5

// scenarios is how many acceptance scenarios there are.
const scenarios = 56

// An event is one line of `go test -json`.
type event struct {
	Action, Package, Test, Output string
}

// A result is one test with what it printed.
type result struct {
	pkg, name, action string
	output            strings.Builder
	parent            bool
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("which report: spec, diff or replay")
	}
	results, err := read(in)
	if err != nil {
		return err
	}
	switch args[0] {
	case "spec":
		return reportSpec(results, out)
	case "diff":
		return reportDiff(results, out)
	case "replay":
		return reportReplay(results, strings.Join(args[1:], ""), out)
	}
	return fmt.Errorf("no report %q: spec, diff or replay", args[0])
}

// read gathers the events by test, in the order in which tests began.
func read(in io.Reader) ([]*result, error) {
	var order []*result
	byName := map[string]*result{}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue // output of the build, not of a test
		}
		if e.Action == "build-output" || e.Action == "output" && e.Test == "" && strings.Contains(e.Output, "FAIL") {
			fmt.Fprint(os.Stderr, e.Output)
		}
		if e.Test == "" {
			continue
		}
		key := e.Package + " " + e.Test
		r := byName[key]
		if r == nil {
			r = &result{pkg: e.Package, name: e.Test}
			byName[key], order = r, append(order, r)
			if i := strings.LastIndex(e.Test, "/"); i >= 0 && byName[e.Package+" "+e.Test[:i]] != nil {
				byName[e.Package+" "+e.Test[:i]].parent = true
			}
		}
		switch e.Action {
		case "output":
			r.output.WriteString(e.Output)
		case "pass", "fail", "skip":
			r.action = e.Action
		}
	}
	return order, lines.Err()
}

var specID = regexp.MustCompile(`\b([A-Z]{2})-(\d{3})\b`)

// reportSpec counts rows by priority. The priorities come from the list itself, which
// lies beside the project.
func reportSpec(results []*result, out io.Writer) error {
	priority, err := readSpec()
	if err != nil {
		return err
	}
	proven := map[string]bool{}
	for _, r := range results {
		if r.action != "pass" || !strings.Contains(r.name, "/") {
			continue
		}
		last := r.name[strings.LastIndex(r.name, "/")+1:]
		ids := specID.FindAllString(strings.ReplaceAll(last, "_", " "), -1)
		if len(ids) > maxIDs {
			return fmt.Errorf("%s names %d rows, more than %d", r.name, len(ids), maxIDs)
		}
		for _, id := range ids {
			if priority[id] == "" {
				return fmt.Errorf("%s: the feature surface has no row %s", r.name, id)
			}
			proven[id] = true
		}
	}
	ids := make([]string, 0, len(proven))
	for id := range proven {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	count, total := map[string]int{}, map[string]int{}
	for _, id := range ids {
		count[priority[id]]++
	}
	for _, p := range priority {
		total[p]++
	}
	fmt.Fprintf(out, "proven rows: %s\n", strings.Join(ids, " "))
	fmt.Fprintf(out, "spec: S %d/%d A %d/%d B %d/%d\n", count["S"], total["S"], count["A"], total["A"], count["B"], total["B"])
	return nil
}

var specRow = regexp.MustCompile(`(?m)^\| ([A-Z]{2}-\d{3}) \| ([SABC]) \|`)

func readSpec() (map[string]string, error) {
	dir := material.Dir()
	if dir == "" {
		return nil, fmt.Errorf("the feature surface is not beside the project: set LATEEN_SHARED to the folder that holds spec/feature-surface.md")
	}
	data, err := os.ReadFile(filepath.Join(dir, "spec", "feature-surface.md"))
	if err != nil {
		return nil, err
	}
	priority := map[string]string{}
	for _, m := range specRow.FindAllStringSubmatch(string(data), -1) {
		priority[m[1]] = m[2]
	}
	return priority, nil
}

func reportDiff(results []*result, out io.Writer) error {
	var cases, agree, listed, unexplained int
	for _, r := range results {
		if !strings.HasPrefix(r.name, "TestDiff/") || strings.Count(r.name, "/") != 2 || strings.Contains(r.name, "/admin_") {
			continue
		}
		cases++
		text := r.output.String()
		switch {
		case r.action == "pass" && strings.Contains(text, "LISTED: "):
			listed++
			fmt.Fprintf(out, "listed       %s\n", strings.TrimPrefix(r.name, "TestDiff/"))
		case r.action == "pass":
			agree++
		default:
			unexplained++
			fmt.Fprintf(out, "unexplained  %s\n%s", strings.TrimPrefix(r.name, "TestDiff/"), text)
		}
	}
	fmt.Fprintf(out, "diff: %d cases, %d agree, %d listed, %d unexplained\n", cases, agree, listed, unexplained)
	if cases == 0 || unexplained > 0 || listed*100 > cases*3 {
		return fmt.Errorf("want cases, nothing unexplained and at most 3 %% listed")
	}
	return nil
}

// A scenario may replay at the gateway alone and in a mesh with pods; it passes
// if it does in all, and each time.
var scenarioName = regexp.MustCompile(`^TestReplay\w*/scenario_(\d+)(?:#\d+)?$`)

// open is what a scenario says of a command that is not run yet.
var open = regexp.MustCompile(`OPEN: (.*)`)

func reportReplay(results []*result, engine string, out io.Writer) error {
	passed := map[string]bool{}
	for _, r := range results {
		m := scenarioName.FindStringSubmatch(r.name)
		if m == nil {
			continue
		}
		number := m[1]
		fmt.Fprintf(out, "scenario %s %s\n", number, r.action)
		was, seen := passed[number]
		passed[number] = r.action == "pass" && (was || !seen)
		if r.action == "fail" {
			fmt.Fprint(out, r.output.String())
		}
		for _, sub := range results {
			if !strings.HasPrefix(sub.name, r.name+"/") {
				continue
			}
			if r.action == "fail" && sub.action == "fail" {
				fmt.Fprint(out, sub.output.String())
			}
			for _, m := range open.FindAllStringSubmatch(sub.output.String(), -1) {
				fmt.Fprintf(out, "scenario %s open: %s\n", number, m[1])
			}
		}
	}
	n := 0
	for _, ok := range passed {
		if ok {
			n++
		}
	}
	fmt.Fprintf(out, "replay %s: %d/%d\n", engine, n, scenarios)
	if slices.Contains([]string{"standalone", "kubernetes"}, engine) {
		return nil
	}
	return fmt.Errorf("no engine %q: standalone or kubernetes", engine)
}
