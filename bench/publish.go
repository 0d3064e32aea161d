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

	"github.com/lateen-mesh/lateen/bench/record"
)

// A result is one line of results.json: our CPU per request over a peer's.
type result struct {
	Case          string  `json:"case"`
	Peer          string  `json:"peer"`
	Ratio         float64 `json:"ratio"`
	LowerQuartile float64 `json:"lower_quartile"`
	Gate          float64 `json:"gate"`
	Goal          float64 `json:"goal"`
	Rounds        int     `json:"rounds"`
}

// bounds are what the ratios are held to: the gate always, the goal in time.
var bounds = map[string]struct{ gate, goal float64 }{
	"envoy": {0.30, 0.16}, "nginx": {1.2, 0.8}, "haproxy": {1.2, 0.8}, "floor": {3, 1.5},
}

// heading is that of this benchmark's section of RESULTS.md.
const heading = "# What a request through the gateway costs"

func publish(contenders []contender, samples map[string][]sample) error {
	ours := samples["lateen"]
	var results []result
	for _, c := range contenders {
		bound, ok := bounds[c.name]
		if !ok {
			continue
		}
		ratios := make([]float64, len(ours))
		for i := range ours {
			ratios[i] = ours[i].cpu / samples[c.name][i].cpu
		}
		results = append(results, result{"http1-mesh", c.name, round(quantile(ratios, 0.5)), round(quantile(ratios, 0.25)), bound.gate, bound.goal, len(ours)})
	}
	data, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile("bench/results.json", append(data, '\n'), 0o644); err != nil { //nolint:gosec // a record for everybody
		return err
	}
	var text strings.Builder
	write(&text, contenders, samples, results)
	fmt.Print(text.String())
	return record.Write("bench/RESULTS.md", heading, []byte(text.String()))
}

func write(w io.Writer, contenders []contender, samples map[string][]sample, results []result) {
	fmt.Fprintf(w, "Measured %s with `make bench` on %d processors of a shared machine (%s), %s, load average %s.\n",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), processor(), runtime.Version(), loadAverage())
	fmt.Fprintf(w, "HTTP/1.1 keep-alive, 8 request headers, 100-byte answers, %d connections; 50 virtual hosts of %d rules, text access log,\nfault and cors filters, request ids, retry policy. Each contender has one processor for itself and runs once per round.\n\n", connections, paths)
	fmt.Fprint(w, "Our CPU per request over a peer's in the same round:\n\n```\n")
	t := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CASE\tPEER\tRATIO (MEDIAN)\tLOWER QUARTILE\tGATE\tGOAL\tROUNDS\tHOLDS")
	for _, r := range results {
		holds := "gate"
		if r.Ratio > r.Gate {
			holds = "-"
		} else if r.Ratio <= r.Goal {
			holds = "goal"
		}
		fmt.Fprintf(t, "%s\t%s\t%.2f\t%.2f\t%.2f\t%.2f\t%d\t%s\n", r.Case, r.Peer, r.Ratio, r.LowerQuartile, r.Gate, r.Goal, r.Rounds, holds)
	}
	_ = t.Flush()
	fmt.Fprint(w, "```\n\nAbsolute figures, medians; they swing with the machine and are not compared between runs:\n\n```\n")
	t = tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CONTENDER\tµs CPU/REQUEST\tREQUESTS/s\tP99\tRSS MB\tVERSION")
	for _, c := range contenders {
		cpu, rate := make([]float64, 0), make([]float64, 0)
		for _, s := range samples[c.name] {
			cpu, rate = append(cpu, s.cpu), append(rate, s.rate)
		}
		last := samples[c.name][len(samples[c.name])-1]
		fmt.Fprintf(t, "%s\t%.1f\t%.0f\t%s\t%.1f\t%s\n", c.name, quantile(cpu, 0.5), quantile(rate, 0.5), last.p99, residentSize(c.pid), c.version)
	}
	_ = t.Flush()
	fmt.Fprint(w, "```\n")
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

func loadAverage() string {
	data, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(data), " ")
	return one
}
