package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/lateen-mesh/lateen/agent/relay"
	"github.com/lateen-mesh/lateen/agent/status"
	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/wellknown"
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

	relay   *relay.Relay
	tasks   sync.WaitGroup
	failed  chan error // of a part without which the agent is of no use
	leaving atomic.Bool
	leave   chan struct{} // a page asked to end
	quit    func()
	drained sync.Once
}

// run is `pilot-agent proxy`.
func (f *proxyFlags) run(ctx context.Context, proxy Proxy) error {
	log, err := logging.New(logging.Options{Output: os.Stderr, Levels: f.logLevel, JSON: f.logJSON})
	if err != nil {
		return fmt.Errorf("--log_output_level: %w", err)
	}
	a := &agent{f: f, log: log, say: log.Scope(logging.DefaultScope), failed: make(chan error, 4), leave: make(chan struct{})}
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
		return proxyEnded(err)
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

func proxyEnded(err error) error {
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	return errors.New("proxy: it has ended by itself")
}

// startParts starts what the proxy needs.
func (a *agent) startParts(ctx context.Context) error {
	if err := a.startRelay(ctx); err != nil {
		return err
	}
	return a.startStatus(ctx)
}

// spawn runs a part; its error ends the agent.
func (a *agent) spawn(name string, run func() error) {
	a.tasks.Go(func() {
		if err := run(); err != nil {
			select {
			case a.failed <- fmt.Errorf("%s: %w", name, err):
			default:
			}
		}
	})
}

func (a *agent) startRelay(ctx context.Context) error {
	text, err := a.pod.input.NodeJSON()
	if err != nil {
		return err
	}
	node := &corepb.Node{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, node); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	network, address := a.controlPlane()
	a.relay, err = relay.Listen(relay.Options{
		Node: node, Socket: a.pod.input.XDSSocket, Journal: filepath.Join(a.pod.dir, journalName), Address: address, Logger: a.log.Scope("relay"),
		Dial: func(ctx context.Context) (net.Conn, error) { return a.dial(ctx, network, address) },
	})
	if err != nil {
		return err
	}
	a.tasks.Go(func() { a.relay.Run(ctx) })
	return nil
}

// controlPlane is the socket of the engine, where there is one or will be, or the configured address.
func (a *agent) controlPlane() (network, address string) {
	if exists(a.f.sockets) {
		return "unix", filepath.Join(a.f.sockets, "xds.sock")
	}
	return "tcp", a.pod.config.GetDiscoveryAddress()
}

// Of a socket of this machine: a try costs nothing, and the mesh starts as one.
const (
	socketStep = 20 * time.Millisecond
	socketWait = time.Second
)

// dial connects to the control plane. A socket is waited for a while.
func (a *agent) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := a.dialer().DialContext(ctx, network, address)
	if err == nil || network != "unix" {
		return c, err
	}
	ctx, cancel := context.WithTimeout(ctx, socketWait)
	defer cancel()
	again := time.NewTicker(socketStep)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, err
		case <-again.C:
		}
		if c, err = a.dialer().DialContext(ctx, network, address); err == nil {
			return c, nil
		}
	}
}

func (a *agent) dialer() *net.Dialer { return &net.Dialer{Timeout: 5 * time.Second} }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (a *agent) startStatus(ctx context.Context) error {
	s, err := status.New(status.Options{
		Admin: a.admin(), Address: a.pod.input.Addresses[0], Logger: a.log.Scope("healthcheck"),
		Probes: getenv("ISTIO_KUBE_APP_PROBERS"), Scrape: getenv("ISTIO_PROMETHEUS_ANNOTATIONS"),
		Metrics: a.metrics, Leaving: a.leaving.Load, Quit: a.quit, Drain: func() { a.drainListeners(ctx) },
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", ":"+strconv.Itoa(int(a.pod.config.GetStatusPort())))
	if err != nil {
		return fmt.Errorf("pages of the agent: %w", err)
	}
	a.spawn("pages of the agent", func() error { return s.Serve(ctx, l) })
	return nil
}

// metrics are the agent's own.
func (a *agent) metrics(w io.Writer) {
	s := a.relay.Status()
	connected := 0
	if s.Connected {
		connected = 1
	}
	for _, m := range []struct {
		name, kind, help string
		value            uint64
	}{
		{"istio_agent_xds_proxy_requests", "counter", "The total number of Xds Proxy Requests", s.Requests},
		{"istio_agent_xds_proxy_responses", "counter", "The total number of Xds Proxy Responses", s.Responses},
		{"istio_agent_xds_proxy_rejects", "counter", "The total number of responses that the proxy refused", s.Refused},
		{"istio_agent_xds_proxy_connected", "gauge", "Whether the control plane is connected", uint64(connected)},
	} {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", m.name, m.help, m.name, m.kind, m.name, m.value)
	}
	fmt.Fprintf(w, "# HELP istio_build Istio component build info\n# TYPE istio_build gauge\nistio_build{component=\"agent\",tag=%q} 1\n", wellknown.Version())
}

// admin is where the proxy's admin API is.
func (a *agent) admin() string {
	return net.JoinHostPort("localhost", strconv.Itoa(int(a.pod.config.GetProxyAdminPort())))
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

// drainListeners has the proxy take no more connections; a sidecar's application may still
// make its own.
func (a *agent) drainListeners(ctx context.Context) {
	a.drained.Do(func() {
		path := "/drain_listeners?graceful"
		if a.f.kind == "sidecar" {
			path += "&inboundonly"
		}
		ctx, cancel := context.WithTimeout(ctx, drainTimeout)
		defer cancel()
		if err := request(ctx, io.Discard, a.admin(), http.MethodPost, path, ""); err != nil {
			a.say.Warn("the proxy's listeners stay as they are", "error", err)
		}
	})
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
