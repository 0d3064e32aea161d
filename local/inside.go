package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lateen-mesh/lateen/local/namespace"
	"github.com/lateen-mesh/lateen/local/outside"
)

// nodeAddress is the mesh's own end of every pod's link.
const nodeAddress = "10.244.0.1"

// prepareNode finds out whether pods can run here. Where they cannot, control plane and gateway
// are processes of this machine, and the reason is kept for whoever asks.
func (s *supervisor) prepareNode(apiPort int) error {
	program, err := s.o.binary(engineProgram)
	if err != nil {
		return err
	}
	found, err := namespace.Probe(context.Background(), program)
	if refusal, ok := errors.AsType[*namespace.Refusal](err); ok {
		s.engine.noPods = fmt.Sprintf("%v (%s)", refusal, refusal.Hint)
		return s.prepareProcesses()
	}
	if err != nil {
		return err
	}
	if err := s.canPublish(); err != nil {
		return err
	}
	argv := []string{program, "node", "--api", s.state.socket("api.sock"), "--api-address", "127.0.0.1:" + strconv.Itoa(apiPort),
		"--state", s.state.path("node"), "--socket", s.state.socket("node.sock"), "--mesh-sockets", s.state.socket(meshSockets),
		"--bin", filepath.Dir(program), "--node", nodeName}
	if !found.TProxy {
		argv = append(argv, "--no-udp")
	}
	if s.o.Proxy != "" {
		proxy, err := s.gatewayProgram()
		if err == nil {
			proxy, err = filepath.Abs(proxy) // as containers see it
		}
		if err != nil {
			return err
		}
		argv = append(argv, "--proxy", proxy)
	}
	for image, command := range s.o.Images {
		argv = append(argv, "--image", image+"="+command)
	}
	if s.engine.node, err = s.newProcess("node", argv); err != nil {
		return err
	}
	s.engine.outside = &outsideHalf{o: s.o, ports: s.state.ports, published: map[int]int{}}
	s.engine.node.dress = s.engine.outside.dress
	return nil
}

// canPublish fails where a port of this machine that was asked for is another program's.
func (s *supervisor) canPublish() error {
	for _, port := range slices.Sorted(maps.Keys(s.o.Publish)) {
		host := s.o.Publish[port]
		if err := open(host); err != nil {
			return &Error{fmt.Errorf("port %d, published as %d: %w", port, host, err), fmt.Sprintf("publish it elsewhere: --publish %d=PORT", port)}
		}
	}
	return nil
}

// The outside half stands in the namespaces of this machine and opens sockets for the
// node: one conversation for each life of it.
type outsideHalf struct {
	o     Options
	ports *reservation

	mu        sync.Mutex
	published map[int]int // port of a pod → port of this machine
}

// dress gives the node its namespaces and one end of the conversation, as descriptor 3.
func (h *outsideHalf) dress(ctx context.Context, cmd *exec.Cmd) (end func(), err error) {
	theirs, ours, err := outside.Pair()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() {
		_ = outside.Serve(ctx, ours, outside.Options{Resolve: h.o.Resolve, Listen: h.listen})
	})
	namespace.Apply(cmd)
	cmd.ExtraFiles = []*os.File{theirs}
	return func() {
		cancel()
		_ = theirs.Close()
		serving.Wait()
	}, nil
}

// listen opens the port of this machine behind a port of a pod. Pods that follow one another have
// the port together for a while.
func (h *outsideHalf) listen(ctx context.Context, port uint16) (*net.TCPListener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	host, err := h.choose(int(port))
	if err != nil {
		return nil, err
	}
	return shared(ctx, host)
}

// shared listens on a port that sockets of this process's user may have together.
func shared(ctx context.Context, port int) (*net.TCPListener, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(err, failed)
	}}
	l, err := c.Listen(ctx, "tcp4", net.JoinHostPort("0.0.0.0", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// all are the ports published now.
func (h *outsideHalf) all() map[int]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.published)
}
