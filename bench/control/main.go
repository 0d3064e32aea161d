// Command control measures the control plane: what it takes to start with a large mesh, to
// serve many proxies that connect at once, and to bring one change to all of them. The
// proxies are simulated in this process: each has a connection of its own, asks as a
// sidecar does, acknowledges everything and decodes nothing. It starts istiod, or drives
// any ADS server by its address, and writes its section of bench/RESULTS.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/lateen-mesh/lateen/bench/record"
)

const heading = "# What the control plane takes"

// settings are the flags.
type settings struct {
	services, endpoints, proxies, changes int

	address string // of a server that runs already
	pid     int    // its process
	dir     string // where it reads configuration
	pages   string // address of its HTTP pages, for churn
	churn   time.Duration
	dry     bool // the results file stays as it is
}

func main() {
	var s settings
	flag.IntVar(&s.services, "services", 1000, "services of the mesh")
	flag.IntVar(&s.endpoints, "endpoints", 10, "endpoints of each")
	flag.IntVar(&s.proxies, "proxies", 200, "proxies that are connected")
	flag.IntVar(&s.changes, "changes", 5, "changes of each kind")
	flag.StringVar(&s.address, "address", "", "HOST:PORT of an ADS server in plain text that runs already; empty starts bin/istiod")
	flag.IntVar(&s.pid, "pid", 0, "with -address: the server's process")
	flag.StringVar(&s.dir, "dir", "", "with -address: the folder that the server reads, which is written to")
	flag.StringVar(&s.pages, "pages", "", "with -address and -churn: HOST:PORT of the server's /metrics")
	flag.DurationVar(&s.churn, "churn", 0, "at the end, change 30 endpoints a second for so long and look whether memory grows; 10m tells")
	flag.BoolVar(&s.dry, "dry", false, "print the figures and leave bench/RESULTS.md as it is")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &s); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s *settings) error {
	if s.address != "" && (s.pid == 0 || s.dir == "") {
		return errors.New("-address needs -pid and -dir: whose CPU is counted, and where changes are written")
	}
	figures, err := measure(ctx, s)
	if err != nil {
		return err
	}
	text := figures.text(s)
	fmt.Print(text)
	if s.dry {
		return nil
	}
	return record.Write("bench/RESULTS.md", heading, []byte(text))
}

// measure is the whole course: start, connect, change.
func measure(ctx context.Context, s *settings) (*figures, error) {
	f := &figures{}
	dir := s.dir
	if dir == "" {
		temporary, err := os.MkdirTemp("", "lateen-bench-control-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(temporary)
		dir = filepath.Join(temporary, "config")
		if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // configuration of a benchmark
			return nil, err
		}
	}
	m := &mesh{dir: dir, settings: s}
	if err := m.write(); err != nil {
		return nil, err
	}
	srv, err := start(ctx, s, dir, f)
	if err != nil {
		return nil, err
	}
	defer srv.stop()
	fleet, err := connect(ctx, s, srv, f)
	if err != nil {
		return nil, err
	}
	defer fleet.close()
	for _, c := range m.kinds() {
		for n := range s.changes {
			progress("%s %d/%d", c.name, n+1, s.changes)
			if err := change(ctx, srv, fleet, f, c, n+1); err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	f.add("RSS at the end, MiB", srv.rss())
	if s.churn > 0 {
		return f, churn(ctx, s, m, srv, fleet, f)
	}
	return f, nil
}

// settle is how long after the last proxy the server's CPU is counted still.
const settle = 1500 * time.Millisecond

// change writes one change and waits until all proxies have it.
func change(ctx context.Context, srv *server, fleet *fleet, f *figures, c kind, n int) error {
	marker := c.marker(n)
	cpu, bytes := srv.cpu(), fleet.bytes()
	fleet.expect(marker)
	began := time.Now()
	if err := c.write(n, marker); err != nil {
		return err
	}
	arrived, err := fleet.arrivals(ctx, began)
	if err != nil {
		return err
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	f.add(c.name+": p50, ms", quantile(arrived, 0.5))
	f.add(c.name+": p99, ms", quantile(arrived, 0.99))
	f.add(c.name+": CPU, s", srv.cpu()-cpu)
	f.add(c.name+": bytes for each proxy", float64(fleet.bytes()-bytes)/float64(len(fleet.proxies)))
	return nil
}

// pause waits, unless the context ends before.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
