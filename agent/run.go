package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lateen-mesh/lateen/agent/identity"
	"github.com/lateen-mesh/lateen/agent/names"
	"github.com/lateen-mesh/lateen/agent/relay"
	"github.com/lateen-mesh/lateen/agent/secrets"
	"github.com/lateen-mesh/lateen/logging"
)

// bootstrapName and journalName are files of the proxy's directory.
const (
	bootstrapName = "envoy-rev.json"
	journalName   = "accepted-config"
)

// agent is a running one.
type agent struct {
	f     *proxyFlags
	log   *logging.Log
	say   *slog.Logger
	pod   *pod
	proxy Proxy

	relay    *relay.Relay
	identity *identity.Keeper // nil: certificates are of files
	secrets  *secrets.Server  // nil: others serve them
	trusts   chan trustNews   // the newest that nobody has taken
	names    *names.Server    // nil: DNS does not come here
	tasks    sync.WaitGroup
	failed   chan error // of a part without which the agent is of no use
	leaving  atomic.Bool
	leave    chan struct{} // a page asked to end
	quit     func()
	drained  sync.Once
}

// run is `pilot-agent proxy`.
func (f *proxyFlags) run(ctx context.Context, proxy Proxy) error {
	log, err := logging.New(logging.Options{Output: os.Stderr, Levels: f.logLevel, JSON: f.logJSON})
	if err != nil {
		return fmt.Errorf("--log_output_level: %w", err)
	}
	a := &agent{f: f, log: log, say: log.Scope(logging.DefaultScope), failed: make(chan error, 4), trusts: make(chan trustNews, 1), leave: make(chan struct{})}
	a.quit = sync.OnceFunc(func() { close(a.leave) })
	if a.pod, err = f.read(a.say); err != nil {
		return err
	}
	if a.proxy, err = f.chosenProxy(a.pod, proxy); err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	return a.serve(ctx, signals)
}

// serve starts everything and keeps it until a signal, or until a part of it fails.
func (a *agent) serve(ctx context.Context, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer a.tasks.Wait()
	defer cancel()
	if err := os.MkdirAll(a.pod.dir, 0o755); err != nil { //nolint:gosec // others may look
		return fmt.Errorf("directory of the proxy: %w (is a volume mounted there that this user may write to? --configPath names another)", err)
	}
	if err := a.startParts(ctx); err != nil {
		return err
	}
	args, err := a.arguments()
	if err != nil {
		return err
	}
	proxying, endProxy := context.WithCancel(ctx)
	defer endProxy()
	ended := make(chan error, 1)
	a.tasks.Go(func() { ended <- a.proxy(proxying, args) })
	select {
	case err := <-ended:
		return a.proxyEnded(err)
	case err := <-a.failed:
		return err
	case <-a.leave:
		a.say.Info("a page was asked to end the proxy")
		return nil
	case <-ctx.Done():
		return nil
	case s := <-signals:
		a.say.Info("the pod is about to end", "signal", s.String())
	}
	return a.depart(ctx, signals, ended)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// proxyEnded is what a proxy's end by itself means: one in order was asked for, by its admin API,
// as Jobs do when they are done.
func (a *agent) proxyEnded(err error) error {
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	a.say.Info("the proxy has ended in order")
	return nil
}

// arguments writes the bootstrap and is the command line of the proxy. The engine's socket is used
// where there is one, by our proxy: others do not know it.
func (a *agent) arguments() ([]string, error) {
	text, err := a.pod.input.JSON()
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	path := filepath.Join(a.pod.dir, bootstrapName)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	c := a.pod.config
	flush := time.Second
	if d := c.GetFileFlushInterval(); d != nil {
		flush = d.AsDuration()
	}
	args := []string{"-c", path, "--drain-time-s", strconv.Itoa(int(c.GetDrainDuration().GetSeconds())), "--drain-strategy", "immediate",
		"--local-address-ip-version", "v4", "--file-flush-interval-msec", strconv.Itoa(int(flush.Milliseconds())),
		"--disable-hot-restart", "--allow-unknown-static-fields", "-l", a.f.level, "--component-log-level", a.f.componentLevel}
	if n := c.GetFileFlushMinSizeKb(); n > 0 {
		args = append(args, "--file-flush-min-size-kb", strconv.Itoa(int(n)))
	}
	if n := a.concurrency(); n > 0 {
		args = append(args, "--concurrency", strconv.Itoa(n))
	}
	override, err := readFile(a.f.override)
	if err != nil {
		return nil, fmt.Errorf("bootstrap override: %w", err)
	}
	if override != nil {
		args = append(args, "--config-yaml", string(override))
	}
	if socket := filepath.Join(a.f.sockets, "outside.sock"); !a.f.foreign(a.pod) && exists(socket) {
		args = append(args, "--publish-socket", socket, "--dial-socket", socket)
	}
	return args, nil
}

// concurrency is the number of the proxy's workers; 0 is that of the CPUs.
func (a *agent) concurrency() int {
	if n := a.pod.config.GetConcurrency(); n != nil {
		return int(n.GetValue())
	}
	n, _ := strconv.Atoi(a.pod.env("ISTIO_CPU_LIMIT"))
	return n
}

// drainTimeout bounds how long the control plane may take to tell the others.
const drainTimeout = 2 * time.Second

// depart lets the pod's connections end, then ends the proxy: the others are told to send
// nothing any more, listeners close, and what is open has time to finish. Another signal
// ends at once.
func (a *agent) depart(ctx context.Context, signals <-chan os.Signal, ended <-chan error) error {
	a.leaving.Store(true)
	ctx, hurry := context.WithCancel(ctx)
	defer hurry()
	done := make(chan struct{})
	a.tasks.Go(func() {
		defer close(done)
		telling, cancel := context.WithTimeout(ctx, drainTimeout)
		defer cancel()
		a.relay.Drain(telling)
		a.drainListeners(ctx)
		a.linger(ctx)
	})
	select {
	case <-done:
		return nil
	case err := <-ended:
		return err
	case <-a.leave:
		return nil
	case s := <-signals:
		a.say.Info("ended at once", "signal", s.String())
		return nil
	}
}

// linger waits as long as the configuration says: a fixed time, or until no connection is left.
func (a *agent) linger(ctx context.Context) {
	if a.pod.env("EXIT_ON_ZERO_ACTIVE_CONNECTIONS") != "true" {
		a.say.Info("draining", "for", a.terminationDrain())
		pause(ctx, a.terminationDrain())
		return
	}
	least, err := time.ParseDuration(cmp.Or(a.pod.env("MINIMUM_DRAIN_DURATION"), "5s"))
	if err != nil {
		least = 5 * time.Second
	}
	a.say.Info("draining until no connection is left", "at_least", least)
	for pause(ctx, least) {
		n, err := a.connections(ctx)
		if err != nil || n == 0 {
			return
		}
		a.say.Info("connections are open", "connections", n)
		least = time.Second
	}
}

func (a *agent) terminationDrain() time.Duration {
	if n, err := strconv.Atoi(a.pod.env("TERMINATION_DRAIN_DURATION_SECONDS")); err == nil && n >= 0 {
		return time.Duration(n) * time.Second
	}
	if d := a.pod.config.GetTerminationDrainDuration(); d != nil {
		return d.AsDuration()
	}
	return 5 * time.Second
}

// pause reports false when ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
