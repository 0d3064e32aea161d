package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/wellknown"
)

// maxStdin bounds configuration from standard input.
const maxStdin = 64 << 20

// A Ready says that traffic can flow, and where.
type Ready struct {
	Took   time.Duration // since Up began
	Status Status
}

// A supervisor is one running mesh.
type supervisor struct {
	o       Options
	state   *state
	began   time.Time
	stdin   []byte
	gateway gatewayConfig
	control *process
	proxy   *process
	dns     *resolver
}

// Up runs a mesh until the context ends, which is no error. It fails when the mesh
// cannot start: a path, port or program that is not to be had, or a state directory
// that another mesh uses.
func Up(ctx context.Context, o Options) error {
	s := &supervisor{o: o, began: time.Now()}
	var err error
	if s.state, err = openState(o.State); err != nil {
		return err
	}
	defer s.state.close()
	if err := s.prepare(); err != nil {
		return err
	}
	defer s.control.log.close()
	defer s.proxy.log.close()
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	spawn := func(run func(context.Context)) {
		running.Go(func() { run(ctx) })
	}
	if s.dns != nil {
		spawn(s.dns.run)
	}
	spawn(s.control.run)
	if err := s.await(ctx, s.control, "the control plane", func() error { _, err := s.Status(ctx); return err }); err != nil {
		return err
	}
	spawn(s.proxy.run)
	if err := s.await(ctx, s.proxy, "the gateway", func() error { return s.gatewayReady(ctx) }); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return nil
	}
	status, err := s.Status(ctx)
	if err == nil {
		if err := useless(status); err != nil {
			return err
		}
	}
	if err == nil && o.Ready != nil {
		o.Ready(Ready{Took: time.Since(s.began), Status: status})
	}
	<-ctx.Done()
	return nil
}

// prepare does all that can fail before anything runs.
func (s *supervisor) prepare() error {
	istiod, err := s.o.binary("istiod")
	if err != nil {
		return err
	}
	gateway, err := s.gatewayProgram()
	if err != nil {
		return err
	}
	if err := s.readStdin(); err != nil {
		return err
	}
	if f := s.o.MeshConfig; f != "" {
		if _, err := os.Stat(f); err != nil {
			return &Error{fmt.Errorf("MeshConfig: %w", err), "name a file with --meshConfig, or leave the flag out for the defaults"}
		}
	}
	if err := s.choosePorts(); err != nil {
		return err
	}
	if len(s.o.Resolve) > 0 {
		if s.dns, err = newResolver(s.o.Resolve, systemServers("/etc/resolv.conf")); err != nil {
			return err
		}
		s.gateway.DNS = s.dns.port()
	}
	text, err := bootstrap(s.gateway)
	if err != nil {
		return err
	}
	if err := s.state.write("gateway.json", text); err != nil {
		return err
	}
	out := &prefixes{out: s.o.Stdout}
	if s.control, err = s.newProcess("istiod", prefixedWriter{out, "istiod   | "}, s.controlArgs(istiod)); err != nil {
		return err
	}
	s.control.input = s.stdin
	s.proxy, err = s.newProcess("gateway", prefixedWriter{out, "gateway  | "}, []string{gateway, "-c", s.state.path("gateway.json"),
		"--concurrency", "2", "-l", "warning", "--component-log-level", "misc:error", "--file-flush-interval-msec", "200", "--drain-time-s", strconv.Itoa(int(drainTime.Seconds())), "--use-dynamic-base-id"})
	return err
}

func (s *supervisor) gatewayProgram() (string, error) {
	if s.o.Proxy != "" {
		return executable(s.o.Proxy)
	}
	return s.o.binary("lateen-proxy")
}

func (s *supervisor) readStdin() error {
	if !slices.Contains(s.o.Paths, "-") {
		return nil
	}
	if s.o.Stdin == nil {
		return errors.New("path -: no standard input")
	}
	text, err := io.ReadAll(io.LimitReader(s.o.Stdin, maxStdin+1))
	if err == nil && len(text) > maxStdin {
		err = fmt.Errorf("more than %d bytes", maxStdin)
	}
	if err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	s.stdin = text
	return nil
}

// choosePorts finds the gateway's own ports and where those of Gateways are published.
func (s *supervisor) choosePorts() error {
	g := &s.gateway
	g.Name = gatewayName + "-local"
	g.XDSSocket = s.state.socket("xds.sock")
	for _, p := range []struct {
		port   *int
		wanted int
	}{{&g.Admin, wellknown.ProxyAdminPort}, {&g.Health, wellknown.ProxyStatusPort}, {&g.Metrics, wellknown.ProxyMetricsPort}} {
		var err error
		if *p.port, err = s.state.ports.loopback(p.wanted); err != nil {
			return err
		}
	}
	node, err := s.node()
	if err != nil {
		return err
	}
	ports, offset, err := s.state.ports.publishing(s.o, s.stdin, node)
	if err != nil {
		return err
	}
	g.Publish, g.Offset = publishList(ports), offset
	return nil
}

// node is the gateway's, as its bootstrap will have it.
func (s *supervisor) node() (*corepb.Node, error) {
	text, err := bootstrapNode(s.gateway)
	if err != nil {
		return nil, err
	}
	n := &corepb.Node{}
	return n, protojson.Unmarshal(text, n)
}

func (s *supervisor) controlArgs(istiod string) []string {
	args := []string{istiod, "discovery", "--grpcAddr", "unix:" + s.gateway.XDSSocket, "--httpAddr", "unix:" + s.state.socket("control.sock"),
		"--monitoringAddr", "", "--secureGRPCAddr", "", "--httpsAddr", "", "--state", s.state.path("config"), "--meshConfig", s.o.MeshConfig}
	for _, p := range s.o.Paths {
		args = append(args, "--configDir", p)
	}
	for _, v := range s.o.Set {
		args = append(args, "--set", v)
	}
	if s.o.LogLevels != "" {
		args = append(args, "--log_output_level", s.o.LogLevels)
	}
	return args
}

func (s *supervisor) newProcess(name string, out io.Writer, argv []string) (*process, error) {
	path := filepath.Join(s.state.dir, "logs", name+".log")
	log, err := openLog(path)
	if err != nil {
		return nil, err
	}
	return &process{name: name, argv: argv, out: out, log: log, changed: s.save,
		part: Part{Name: name, State: "starting", Since: time.Now(), Log: path}}, nil
}

func (s *supervisor) save() {
	var parts []Part
	for _, p := range []*process{s.control, s.proxy} {
		if p != nil {
			parts = append(parts, p.status())
		}
	}
	s.state.saveParts(parts)
}

// startTime bounds the start of the mesh; a process that ends in it is an error
// rather than something to try again.
const startTime = 30 * time.Second

// await waits until a check passes.
func (s *supervisor) await(ctx context.Context, p *process, what string, check func() error) error {
	deadline := time.NewTimer(startTime)
	defer deadline.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		if part := p.status(); part.Exit != "" {
			return &Error{fmt.Errorf("%s ended: %s", what, lastWords(part)), "its log: " + part.Log}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-deadline.C:
			return &Error{fmt.Errorf("%s is not ready after %s: %w", what, startTime, err), "its log: " + p.status().Log}
		case <-poll.C:
		}
	}
}

// lastWords is what a process said last, or how it ended.
func lastWords(p Part) string {
	text, err := os.ReadFile(p.Log)
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		return p.Exit
	}
	all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.TrimPrefix(all[len(all)-1], []byte("error: ")))
}

// gatewayReady reports what the gateway still waits for: its own readiness, and the
// newest generation active. What it refuses does not keep it from serving the rest.
func (s *supervisor) gatewayReady(ctx context.Context) error {
	status, err := s.Status(ctx)
	if err != nil {
		return err
	}
	active := slices.ContainsFunc(status.Control.Proxies, func(p control.ProxyStatus) bool {
		return p.Synced || len(p.Refused) > 0
	})
	if !active {
		return errors.New("the configuration is not active yet")
	}
	url := "http://127.0.0.1:" + strconv.Itoa(s.gateway.Admin) + "/ready"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Do(r)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return errors.New("its /ready says " + reply.Status)
	}
	return nil
}

// Status describes the mesh from inside.
func (s *supervisor) Status(ctx context.Context) (Status, error) { return ReadStatus(ctx, s.state.dir) }
