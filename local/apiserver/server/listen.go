package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"

	"github.com/lateen-mesh/lateen/local/apiserver/pki"
)

// A trusted connection needs no credentials: the far end is this process, or a
// process of its user. name is who it acts as.
type trusted struct {
	net.Conn
	name string
}

// listenSocket opens the unix socket at path, readable by its owner only, in place
// of one that an earlier process left.
func listenSocket(path string, log *slog.Logger) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// A socket takes its mode from the umask alone: a later chmod would leave a gap. The directory
	// that is made for this moment is for its owner only, and the socket moves out of it afterwards.
	private, err := os.MkdirTemp(filepath.Dir(path), ".socket-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	made := filepath.Join(private, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(made, 0o600), os.Rename(made, path)); err != nil {
		listener.Close()
		return nil, err
	}
	return ownersOnly{listener, path, log}, nil
}

// ownersOnly accepts connections of this process's user and of root.
type ownersOnly struct {
	*net.UnixListener
	path string
	log  *slog.Logger
}

func (l ownersOnly) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peer(conn)
		if err == nil && (uid == 0 || int(uid) == os.Geteuid()) {
			return trusted{conn, "lateen"}, nil
		}
		conn.Close()
		l.log.Warn("connection refused: another user", "socket", l.path, "uid", uid, "error", err)
	}
}

func (l ownersOnly) Close() error {
	os.Remove(l.path)
	return l.UnixListener.Close()
}

func peer(conn *net.UnixConn) (uid uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var credentials *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		credentials, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, failed); err != nil {
		return 0, err
	}
	return credentials.Uid, nil
}

// A loopback is a listener within the process: the way of our own clients, with no
// socket in between.
type loopback struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newLoopback() *loopback {
	return &loopback{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *loopback) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *loopback) Close() error   { close(l.closed); return nil }
func (l *loopback) Addr() net.Addr { return &net.UnixAddr{Name: "loopback", Net: "unix"} }

func (l *loopback) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- trusted{theirs, "system:apiserver"}:
		return ours, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// config returns the configuration of clients that use the loopback. They share
// one pool of connections and are not rate-limited: a limit of the client would
// only delay what the server has to do anyway.
func (l *loopback) config() *rest.Config {
	return &rest.Config{
		Host:  "http://loopback",
		QPS:   -1,
		Burst: -1,
		Transport: &http.Transport{
			DialContext:         l.dial,
			DisableCompression:  true,
			MaxIdleConnsPerHost: 32,
			IdleConnTimeout:     time.Minute,
		},
	}
}

// serve answers on all listeners until ctx ends, then ends what is still open.
func serve(ctx context.Context, handler http.Handler, keys *pki.Keys, tcp, socket net.Listener, loop *loopback, log *slog.Logger) error {
	server := func() *http.Server {
		return &http.Server{
			Handler: handler,
			ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
				if t, ok := conn.(trusted); ok {
					return context.WithValue(ctx, trustedKey{}, t.name)
				}
				return ctx
			},
			ReadHeaderTimeout: 30 * time.Second,
			MaxHeaderBytes:    64 << 10,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		}
	}
	// Two servers: one that has begun to serve in the clear no longer offers HTTP/2 on TLS.
	public, private := server(), server()
	public.TLSConfig = &tls.Config{
		Certificates: []tls.Certificate{keys.Server},
		ClientAuth:   tls.RequestClientCert, // verified by the authenticator, which knows other ways too
		MinVersion:   tls.VersionTLS12,
	}
	failed := make(chan error, 3)
	go func() { failed <- public.ServeTLS(tcp, "", "") }()
	go func() { failed <- private.Serve(loop) }()
	if socket != nil {
		go func() { failed <- private.Serve(socket) }()
	}
	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	// Watches never end by themselves, so waiting for all is of no use.
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 200*time.Millisecond)
	defer cancel()
	for _, s := range []*http.Server{public, private} {
		if s.Shutdown(drain) != nil {
			s.Close()
		}
	}
	return err
}
