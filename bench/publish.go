package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lateen-mesh/lateen/bench/process"
	"github.com/lateen-mesh/lateen/bench/record"
)

// An outcome is what one benchmark has measured, by contender.
type outcome struct {
	benchmark
	samples map[string][]sample
}

// A result is one line of results.json: our figure over a peer's, or our figure itself,
// which then has no peer.
type result struct {
	Case          string  `json:"case"`
	Peer          string  `json:"peer,omitempty"`
	Unit          string  `json:"unit,omitempty"`
	Value         float64 `json:"value"`
	LowerQuartile float64 `json:"lower_quartile"`
	Gate          float64 `json:"gate"`
	Goal          float64 `json:"goal"`
	Rounds        int     `json:"rounds"`
}

// heading is that of this benchmark's section of RESULTS.md.
const heading = "# What traffic through the proxy costs"

// results are the lines of one benchmark.
func (o outcome) results() []result {
	ours := o.samples["lateen"]
	var list []result
	add := func(r result, values []float64, b bound) {
		r.Case, r.Value, r.LowerQuartile = o.name, round(quantile(values, 0.5)), round(quantile(values, 0.25))
		r.Gate, r.Goal, r.Rounds = b.gate, b.goal, len(ours)
		list = append(list, r)
	}
	values := make([]float64, len(ours))
	if o.own != nil {
		for i := range ours {
			values[i] = ours[i].value
		}
		add(result{Unit: o.unit}, values, *o.own)
	}
	for _, b := range o.bounds {
		for i := range ours {
			values[i] = ours[i].value / o.samples[b.peer][i].value
		}
		add(result{Peer: b.peer}, values, b)
	}
	return list
}

// publish prints the table, and records it if all was measured.
func publish(b *bench, all []outcome, whole bool) error {
	var results []result
	for _, o := range all {
		results = append(results, o.results()...)
	}
	var text strings.Builder
	write(&text, b.contenders, all, results)
	fmt.Print(text.String())
	if !whole {
		return nil
	}
	data, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile("bench/results.json", append(data, '\n'), 0o644); err != nil { //nolint:gosec // a record for everybody
		return err
	}
	return record.Write("bench/RESULTS.md", heading, []byte(text.String()))
}

func write(w io.Writer, contenders []contender, all []outcome, results []result) {
	fmt.Fprintf(w, "Measured %s with `make bench` on %d processors of a shared machine (%s), %s, load average %s.\n",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), processor(), runtime.Version(), process.LoadAverage())
	var versions []string
	for _, c := range contenders {
		versions = append(versions, c.name+" "+c.version)
	}
	fmt.Fprintf(w, "Contenders: %s.\n", strings.Join(versions, ", "))
	fmt.Fprintf(w, "Mesh-like: %d virtual hosts of %d rules, text access log, fault and cors filters, request ids, retry policy. HTTP/1.1: %d\nconnections, 8 request headers, 100-byte answers. Each contender has one processor for itself and runs once per round.\n\n", hosts, paths, connections)
	fmt.Fprint(w, "Our figure over a peer's in the same round; or, without a peer, our figure itself:\n\n```\n")
	t := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CASE\tPEER\tMEDIAN\tLOWER QUARTILE\tGATE\tGOAL\tROUNDS\tHOLDS")
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%s\t%.2f\t%.2f\t%.2f\t%.2f\t%d\t%s\n", r.Case, r.peer(), r.Value, r.LowerQuartile, r.Gate, r.Goal, r.Rounds, r.holds())
	}
	_ = t.Flush()
	fmt.Fprint(w, "```\n\nWhere a gate is not met, design/0006 has the profile, what limits us and what was tried.\n\nAbsolute figures, medians; they swing with the machine and are not compared between runs:\n\n```\n")
	t = tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CASE\tCONTENDER\tFIGURE\tUNIT\tREQUESTS/s")
	for _, o := range all {
		for _, c := range o.who(contenders) {
			fmt.Fprintf(t, "%s\t%s\t%.1f\t%s\t%.0f\n", o.name, c.name, quantile(values(o.samples[c.name]), 0.5), o.unit, medianRate(o.samples[c.name]))
		}
	}
	_ = t.Flush()
	fmt.Fprint(w, "```\n")
}

// peer is what stands in the table's column.
func (r result) peer() string {
	if r.Peer == "" {
		return r.Unit
	}
	return r.Peer
}

func (r result) holds() string {
	switch {
	case r.Value <= r.Goal:
		return "goal"
	case r.Value <= r.Gate:
		return "gate"
	}
	return "-"
}

func values(samples []sample) []float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, s.value)
	}
	return all
}

func medianRate(samples []sample) float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, s.rate)
	}
	if len(all) == 0 {
		return 0
	}
	return quantile(all, 0.5)
}

// quantile is the value below which the share q of the values lies.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low+1 >= len(sorted) {
		return sorted[low]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

func round(f float64) float64 { return float64(int(f*1000+0.5)) / 1000 }

func processor() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.SplitSeq(string(data), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
