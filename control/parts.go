package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
)

// A part is something that runs for the life of the server. run returns when its
// context ends; any part that returns earlier ends the server.
type part struct {
	name string
	on   bool
	run  func(context.Context) error
}

// parts is all that runs.
func (s *Server) parts() []part {
	return []part{
		{"configuration files", len(s.o.Paths) > 0, s.files.Run},                    // Paths ─► Store
		{"Kubernetes API", s.api != nil, s.api.Run},                                 // API ─► Store
		{"mesh configuration", s.meshFile.path != "", s.meshFile.run},               // MeshConfig ─► builder
		{"keys of tokens", true, s.tokens.fetcher.Run},                              // places of keys ─► builder
		{"readers of Secrets", s.readers != nil, s.readers.run},                     // API ─► builder
		{"builder", true, s.build},                                                  // Store, MeshConfig ─► Snapshot ─► ads
		{"discovery service", len(s.grpcSockets) > 0, s.serveDiscovery},             // Snapshot ─► proxies
		{"certificate authority", s.authority != nil, s.runAuthority},               // directory, API ─► certificates
		{"secure discovery service", s.authority != nil, s.serveAuthority},          // Snapshot ─► known proxies
		{"pages", len(s.sockets) > 0, s.servePages},                                 // health, debug, metrics
		{"webhooks", len(s.hookSockets) > 0, s.serveHooks},                          // pods ─► pods with a sidecar
		{"webhook configurations", s.webhooks != nil, s.webhooks.Run},               // our certificate ─► API
		{"addresses of Ingresses", s.api != nil, s.tellAddresses},                   // Snapshot ─► API
		{"problems", true, s.tellProblems},                                          // Snapshot, proxies ─► log
		{"end", true, func(ctx context.Context) error { <-ctx.Done(); return nil }}, // keeps a server without other parts alive
	}
}

// stopTime bounds how long streams may take to end.
const stopTime = 2 * time.Second

// serveDiscovery waits for the first snapshot; connections wait in the socket's queue.
func (s *Server) serveDiscovery(ctx context.Context) error {
	select {
	case <-s.built:
	case <-ctx.Done():
		return nil
	}
	return s.serveGRPC(ctx, s.grpc, s.grpcSockets)
}

// serveGRPC serves on sockets until ctx ends, and lets streams end in order.
func (s *Server) serveGRPC(ctx context.Context, server *grpc.Server, sockets []net.Listener) error {
	ended := make(chan error, len(sockets))
	for _, l := range sockets {
		go func() { ended <- server.Serve(l) }()
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	s.ads.Close()
	force := time.AfterFunc(stopTime, server.Stop)
	defer force.Stop()
	server.GracefulStop()
	for range sockets {
		<-ended
	}
	return nil
}

func (s *Server) servePages(ctx context.Context) error {
	ended := make(chan error, len(s.sockets))
	for _, l := range s.sockets {
		go func() { ended <- s.http.Serve(l) }()
	}
	var failure error
	left := len(s.sockets)
	select {
	case failure = <-ended:
		left--
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	_ = s.http.Shutdown(stop)
	_ = s.http.Close()
	for range left {
		<-ended
	}
	if errors.Is(failure, http.ErrServerClosed) {
		return nil
	}
	return failure
}

// listen opens "host:port", ":port" or "unix:path". A socket file that nobody
// listens on any more is replaced; the new one is for its owner only.
func listen(address string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		return net.Listen("tcp", address)
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, &net.OpError{Op: "listen", Net: "unix", Addr: &net.UnixAddr{Name: path, Net: "unix"}, Err: errors.New("another process listens there")}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}
