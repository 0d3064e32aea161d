package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lateen-mesh/lateen/bench/process"
)

// figures are what was measured, by name in the order of their first measurement.
type figures struct {
	names  []string
	values map[string][]float64
}

func (f *figures) add(name string, v float64) {
	if f.values == nil {
		f.values = map[string][]float64{}
	}
	if f.values[name] == nil {
		f.names = append(f.names, name)
	}
	f.values[name] = append(f.values[name], v)
}

func (f *figures) text(s *settings) string {
	var out strings.Builder
	fmt.Fprintf(&out, "Measured %s with `make bench-control` on %d processors of a shared machine, %s, load average %s: %d services of %d\n"+
		"endpoints, %d simulated sidecars of one namespace, delta xDS in plain text, clusters and listeners as a whole, endpoints and\n"+
		"routes by name. Latencies begin with the write of a file and hold the work of the simulated proxies on the same processors;\n"+
		"CPU is the server's until 1.5 s after the last proxy has the change.\n\n```\n",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), runtime.Version(), process.LoadAverage(), s.services, s.endpoints, s.proxies)
	t := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "MINIMUM\tMEDIAN\t")
	for _, name := range f.names {
		v := f.values[name]
		fmt.Fprintf(t, "%s\t%s\t%s\n", number(slices.Min(v)), number(quantile(v, 0.5)), " "+name)
	}
	_ = t.Flush()
	fmt.Fprintln(&out, "```")
	return out.String()
}

// number has as many digits as are worth reading.
func number(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// quantile of values that are not sorted; 0 of none.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(v))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
