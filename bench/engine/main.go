// Command engine measures the local engine: how long a mesh with pods takes to start,
// what exec costs beyond kubectl's own start, and what its processes hold in memory. It
// starts meshes of its own on this machine and ends them, and writes its section of
// bench/RESULTS.md.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lateen-mesh/lateen/bench/process"
	"github.com/lateen-mesh/lateen/bench/record"
	"github.com/lateen-mesh/lateen/local"
)

const heading = "# What the local engine takes"

func main() {
	rounds := flag.Int("rounds", 5, "meshes that are started for each figure")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// A bench collects figures by name, in milliseconds or MB.
type bench struct {
	bin     string
	figures map[string][]float64
}

func run(ctx context.Context, rounds int) error {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	b := &bench{bin: bin, figures: map[string][]float64{}}
	for round := range rounds {
		fmt.Fprintf(os.Stderr, "round %d/%d\n", round+1, rounds)
		if err := b.round(ctx); err != nil {
			return err
		}
	}
	text := b.text(rounds)
	fmt.Print(text)
	return record.Write("bench/RESULTS.md", heading, []byte(text))
}

// round is a new mesh with Bookinfo, the same mesh again, and twelve pods.
func (b *bench) round(ctx context.Context) error {
	state, err := os.MkdirTemp("", "lateen-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	for _, start := range []string{"first start", "later start"} {
		if err := b.mesh(ctx, state, start); err != nil {
			return fmt.Errorf("%s: %w", start, err)
		}
	}
	return nil
}

func (b *bench) mesh(ctx context.Context, state, start string) error {
	began := time.Now()
	kubectl := make(chan error, 1)
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { kubectl <- b.firstGet(watch, state, start, began) }()
	up := exec.CommandContext(ctx, filepath.Join(b.bin, "lateen"), "up", "--detach", "--state", state, "samples/bookinfo", "samples/sleep/sleep.yaml") //nolint:gosec // our own program
	if out, err := up.CombinedOutput(); err != nil {
		return fmt.Errorf("lateen up: %w\n%s", err, out)
	}
	b.add(start+": all pods ready", ms(began))
	defer func() { _ = local.Down(context.WithoutCancel(ctx), state) }()
	if err := b.firstPage(ctx, state); err != nil {
		return err
	}
	b.add(start+": Bookinfo's first page served", ms(began))
	if err := <-kubectl; err != nil {
		return err
	}
	if start == "first start" {
		return nil
	}
	if err := b.memory(state); err != nil {
		return err
	}
	return b.pods(ctx, state)
}

// firstPage asks the gateway for the product page until it is there.
func (b *bench) firstPage(ctx context.Context, state string) error {
	st, err := local.ReadRecord(state)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/productpage", st.Published[80]), nil)
		if err != nil {
			return err
		}
		reply, err := client.Do(r)
		if err == nil {
			text, _ := io.ReadAll(reply.Body)
			_ = reply.Body.Close()
			if reply.StatusCode == http.StatusOK && bytes.Contains(text, []byte("The Comedy of Errors")) {
				return nil
			}
			err = errors.New(reply.Status)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("product page: %w", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// firstGet is kubectl as soon as there is a kubeconfig.
func (b *bench) firstGet(ctx context.Context, state, start string, began time.Time) error {
	for listened := false; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(state, "kubeconfig")); err != nil {
			continue
		}
		if !listened {
			listened = true
			b.add(start+": Kubernetes API listens", ms(began))
		}
		if b.kubectl(ctx, state, "get", "namespaces") == nil {
			b.add(start+": first kubectl get answered", ms(began))
			return nil
		}
	}
	return ctx.Err()
}

func (b *bench) kubectl(ctx context.Context, state string, args ...string) error {
	cmd := exec.CommandContext(ctx, "kubectl", append([]string{"--kubeconfig", filepath.Join(state, "kubeconfig")}, args...)...) //nolint:gosec // the kubectl of this machine, with arguments of ours
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// pods measures what is done with a running mesh.
func (b *bench) pods(ctx context.Context, state string) error {
	const plain = "--namespace=kube-public" // whose pods have no sidecars
	steps := []struct {
		name string
		args []string
	}{
		{"", []string{"create", "deployment", "twelve", plain, "--image=busybox", "--replicas=12", "--", "sleep", "1000"}},
		{"12 pods without sidecars ready after they were asked for", []string{"rollout", "status", "deployment/twelve", plain}},
		{"kubectl get namespaces", []string{"get", "namespaces"}},
		{"kubectl exec true", []string{"exec", "deployment/sleep", "--", "true"}},
		{"kubectl delete of 12 pods", []string{"delete", "deployment", "twelve", plain, "--cascade=foreground"}},
	}
	for _, s := range steps {
		began := time.Now()
		if err := b.kubectl(ctx, state, s.args...); err != nil {
			return err
		}
		if s.name != "" {
			b.add(s.name, ms(began))
		}
	}
	return nil
}

// memory is the proportional share of each part, after the burst of the start is over.
func (b *bench) memory(state string) error {
	time.Sleep(5 * time.Second) // parts give memory back after a while
	st, err := local.ReadRecord(state)
	if err != nil {
		return err
	}
	parts := map[int]string{st.PID: "the supervisor"}
	for _, p := range st.Parts {
		parts[p.PID] = p.Name
	}
	sum := map[string]float64{}
	largest := 0.0
	for _, pid := range family(st.PID) {
		mb, name := pss(pid), cmp.Or(parts[pid], program(pid))
		sum[name] += mb
		sum["all processes"] += mb
		if name == "pilot-agent" {
			largest = max(largest, mb)
		}
	}
	for name, mb := range sum {
		b.add("PSS of "+name+", MB", mb)
	}
	b.add("PSS of the largest proxy with its agent, MB", largest)
	return nil
}

// family is a process with all below it.
func family(top int) []int {
	parents := map[int]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range dirs {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) > 1 {
			parents[pid], _ = strconv.Atoi(fields[1])
		}
	}
	all := []int{top}
	for i := 0; i < len(all); i++ {
		for pid, parent := range parents {
			if parent == all[i] {
				all = append(all, pid)
			}
		}
	}
	return all
}

// program is what a process runs, by the name of its file.
func program(pid int) string {
	words, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	first, _, _ := bytes.Cut(words, []byte{0})
	return filepath.Base(string(first))
}

func (b *bench) add(name string, v float64) { b.figures[name] = append(b.figures[name], v) }

func ms(began time.Time) float64 { return float64(time.Since(began).Microseconds()) / 1000 }

// pss is the proportional set size of a process in MB, 0 when it cannot be read.
func pss(pid int) float64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) > 1 && fields[0] == "Pss:" {
			kb, _ := strconv.ParseFloat(fields[1], 64)
			return kb / 1024
		}
	}
	return 0
}

func (b *bench) text(rounds int) string {
	var out strings.Builder
	fmt.Fprintf(&out, "Measured %s with `make bench-engine` on %d processors of a shared machine, %s, load average %s, %d rounds.\n"+
		"Milliseconds since `lateen up --detach` was called, or of the command named; the kinds of Istio are in the API. Single\n"+
		"figures swing with the machine: minimum and median are given.\n\n```\n",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), runtime.Version(), process.LoadAverage(), rounds)
	t := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tMINIMUM\tMEDIAN")
	names := make([]string, 0, len(b.figures))
	for name := range b.figures {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		v := slices.Sorted(slices.Values(b.figures[name]))
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\n", name, v[0], v[len(v)/2])
	}
	_ = t.Flush()
	fmt.Fprintln(&out, "```")
	for _, program := range []string{"lateen", "lateen-apiserver", "istiod", "lateen-engine", "pilot-agent", "lateen-init"} {
		if info, err := os.Stat(filepath.Join(b.bin, program)); err == nil {
			fmt.Fprintf(&out, "\n%s: %.1f MB on disk.", program, float64(info.Size())/1e6)
		}
	}
	return out.String() + "\n"
}
