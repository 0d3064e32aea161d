package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"golang.org/x/sys/unix"

	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Run serves until ctx ends, then drains; it returns nil after an orderly end. Its log
// goes to out unless the options name a file.
func Run(ctx context.Context, b *Bootstrap, o Options, out io.Writer) error {
	if o.Concurrency > 0 {
		runtime.GOMAXPROCS(o.Concurrency)
	}
	release, err := lockBaseID(o)
	if err != nil {
		return err
	}
	defer release()
	s, err := newServer(b, o, out)
	if err != nil {
		return err
	}
	defer s.close()
	return s.run(ctx)
}

// Validate compiles everything that the bootstrap holds and serves nothing.
func Validate(b *Bootstrap, o Options, out io.Writer) error {
	o.Mode = "validate"
	s, err := newServer(b, o, out)
	if err != nil {
		return err
	}
	defer s.close()
	return s.addStatic()
}

func (s *server) run(ctx context.Context) error {
	if len(s.boot.Ignored) > 0 {
		s.log.Info("parts of the bootstrap have no effect in this proxy: " + strings.Join(s.boot.Ignored, ", "))
	}
	s.setState(adminpb.ServerInfo_PRE_INITIALIZING)
	quit := make(chan struct{})
	s.quit = sync.OnceFunc(func() { close(quit) })
	if err := s.serveAdmin(); err != nil {
		return err
	}
	if err := s.addStatic(); err != nil {
		return err
	}
	layers, err := s.subscribeLayers()
	if err != nil {
		return err
	}
	s.tasks.Go(func() { s.initialize(layers) })
	s.tasks.Go(s.followRuntime)
	s.tasks.Go(s.sweepMemory)
	s.tasks.Go(s.flushStats)
	for {
		select {
		case <-s.opts.Stop:
			return nil
		case <-quit:
			return nil
		case <-s.opts.Reopen:
			s.reopenLogs()
		case <-ctx.Done():
			s.drain(quit)
			return nil
		}
	}
}

// followRuntime keeps directories of runtime values up to date.
func (s *server) followRuntime() {
	if err := s.boot.runtime.Follow(s.ctx); err != nil {
		s.log.Warn(err.Error())
	}
}

// initialize is the order of start: clusters, layers of the runtime that come by
// themselves, listeners, workers.
func (s *server) initialize(layers []<-chan struct{}) {
	d := s.boot.Proto.GetDynamicResources()
	s.clusters.Start(s.cds, xds.FetchTimeout(d.GetCdsConfig()))
	if s.ads != nil {
		s.tasks.Go(func() { s.ads.Run(s.ctx) })
	}
	if !s.await(s.clusters.Initialized()) {
		return
	}
	for _, l := range layers {
		if !s.await(l) {
			return
		}
	}
	s.setState(adminpb.ServerInfo_INITIALIZING)
	if s.lds != nil {
		first := make(chan struct{})
		s.subscribeListeners(sync.OnceFunc(func() { close(first) }))
		if !s.await(first) {
			return
		}
	}
	s.listeners.Start() // from here each listener accepts as soon as it is warm
	if !s.awaitListeners() {
		return
	}
	s.setState(adminpb.ServerInfo_LIVE)
	s.stats.Scope("server.").Histogram("initialization_time_ms").Record(uint64(time.Since(s.start).Milliseconds()))
	s.log.Info("all dependencies initialized: starting workers")
	s.trimMemory()
}

// awaitListeners waits for the first listeners' routes and secrets. One that lacks
// them for long (a Gateway whose Secret is missing) must not keep the others from
// being announced: it is named and warms by itself.
func (s *server) awaitListeners() bool {
	ctx, cancel := context.WithTimeout(s.ctx, warmGrace)
	defer cancel()
	if s.listeners.WaitWarm(ctx) == nil {
		return true
	}
	var names []string
	for _, l := range s.listeners.View() {
		if l.Warming {
			names = append(names, l.Name)
		}
	}
	s.log.Warn("listeners wait for routes or secrets and do not accept yet: " + strings.Join(names, ", "))
	return s.ctx.Err() == nil
}

// warmGrace is many times what a management server at hand needs to answer.
const warmGrace = 3 * time.Second

// await reports false when the proxy ends first.
func (s *server) await(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	case <-s.ctx.Done():
		return false
	}
}

func (s *server) serveAdmin() error {
	if s.boot.adminAddress == "" {
		return nil
	}
	ln, err := net.Listen("tcp", s.boot.adminAddress)
	if err != nil {
		return fmt.Errorf("admin: cannot bind '%s': %w", s.boot.adminAddress, err)
	}
	s.adminAddr = ln.Addr()
	s.log.Info("admin address: " + ln.Addr().String())
	if path := s.opts.AdminAddressPath; path != "" {
		if err := os.WriteFile(path, []byte(ln.Addr().String()), 0o644); err != nil { //nolint:gosec // for others to read
			_ = ln.Close()
			return fmt.Errorf("admin-address-path: %w", err)
		}
	}
	s.tasks.Go(func() {
		if err := s.admin.Serve(ln); err != nil {
			s.log.Error("admin pages ended", "error", err)
		}
	})
	return nil
}

// drain closes listeners, lets connections finish and returns when none is left, the
// drain time is over, or somebody is in a hurry.
func (s *server) drain(quit <-chan struct{}) {
	s.failing.Store(true)
	s.log.Info("draining", "seconds", s.opts.DrainTime.Seconds(), "connections", s.listeners.Connections())
	s.listeners.Drain(false, true)
	ctx, cancel := context.WithTimeout(context.Background(), s.opts.DrainTime)
	defer cancel()
	go func() {
		select {
		case <-quit:
		case <-s.opts.Stop:
		case <-ctx.Done():
		}
		cancel()
	}()
	if s.listeners.WaitIdle(ctx) != nil {
		s.log.Info("connections are cut", "connections", s.listeners.Connections())
	}
}

func (s *server) reopenLogs() {
	if err := errors.Join(s.files.Reopen(), s.out.reopen()); err != nil {
		s.log.Error("logs not opened again", "error", err)
	}
}

// lockBaseID keeps two proxies from running under one base id in one network
// namespace, as Envoy's domain sockets do. The lock is an abstract socket, so it ends
// with the process.
func lockBaseID(o Options) (release func(), err error) {
	if o.DisableRestart {
		return func() {}, nil
	}
	ids := []int{o.BaseID}
	if o.DynamicBaseID {
		ids = nil
		for id := range 1000 {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		name := fmt.Sprintf("@lateen_proxy_%d", id)
		var ln *net.UnixListener
		ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		if err == nil {
			return func() { _ = ln.Close() }, nil
		}
		if errors.Is(err, unix.EADDRINUSE) {
			err = fmt.Errorf("unable to bind domain socket with base_id=%d, id=%d, errno=98 (see --base-id option)", id, id*10)
		}
	}
	return nil, err
}
