package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/lateen-mesh/lateen/local/kubelet/logs"
)

// idleTime ends streams on which nothing comes.
const idleTime = 4 * time.Hour

// A server answers what the API server asks of a kubelet.
type server struct {
	k        *Kubelet
	listener net.Listener
	http     *http.Server
	tunnels  *tunnels
}

// listen opens the unix socket, for this user only.
func (k *Kubelet) listen() (*server, error) {
	if err := os.Remove(k.o.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	old := unix.Umask(0o177) // the socket is never open to others
	listener, err := net.Listen("unix", k.o.Socket)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("socket of node %s: %w", k.o.Node, err)
	}
	s := &server{k: k, listener: sameUser{listener}, tunnels: newTunnels(k)}
	mux := s.mux()
	s.http = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect { // which has no path
			s.tunnels.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})}
	return s, nil
}

// mux has the paths of a kubelet.
func (s *server) mux() http.Handler {
	mux := http.NewServeMux()
	for _, method := range []string{"GET", "POST"} {
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{container}", s.exec)
		mux.HandleFunc(method+" /attach/{namespace}/{pod}/{container}", s.attach)
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}", s.portForward)
	}
	mux.HandleFunc("POST /run/{namespace}/{pod}/{container}", s.run)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	return mux
}

func (s *server) serve() { _ = s.http.Serve(s.listener) }

func (s *server) close() {
	_ = s.http.Close()
	s.tunnels.close()
	_ = os.Remove(s.k.o.Socket)
}

// sameUser accepts connections of this process's user only.
type sameUser struct{ net.Listener }

// Accept returns the next connection of the user.
func (l sameUser) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if peer(conn) == os.Getuid() {
			return conn, nil
		}
		_ = conn.Close()
	}
}

// peer is the user at the other end, -1 when it cannot be told.
func peer(conn net.Conn) int {
	uid := -1
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return uid
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return uid
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = int(cred.Uid)
		}
	})
	return uid
}

// find is the pod that a request is about; without it, the request is answered.
func (s *server) find(w http.ResponseWriter, r *http.Request) *worker {
	found, err := s.k.find(r.PathValue("namespace"), r.PathValue("pod"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return nil
	}
	return found
}

func (s *server) exec(w http.ResponseWriter, r *http.Request) {
	pod := s.find(w, r)
	if pod == nil {
		return
	}
	streams, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, session{pod}, "", "", r.PathValue("container"), r.URL.Query()["command"], streams,
		idleTime, remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
}

func (s *server) attach(w http.ResponseWriter, r *http.Request) {
	pod := s.find(w, r)
	if pod == nil {
		return
	}
	streams, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeAttach(w, r, session{pod}, "", "", r.PathValue("container"), streams,
		idleTime, remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
}

func (s *server) portForward(w http.ResponseWriter, r *http.Request) {
	pod := s.find(w, r)
	if pod == nil {
		return
	}
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, session{pod}, r.PathValue("pod"), "", options,
		idleTime, remotecommand.DefaultStreamCreationTimeout, portforward.SupportedProtocols)
}

// run runs a program and answers with its output.
func (s *server) run(w http.ResponseWriter, r *http.Request) {
	pod := s.find(w, r)
	if pod == nil {
		return
	}
	current, err := pod.current(r.PathValue("container"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	output, _, err := current.ask(r.Context(), r.URL.Query()["cmd"])
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write(output) //nolint:gosec // plain text, to the API server
}

func (s *server) logs(w http.ResponseWriter, r *http.Request) {
	pod := s.find(w, r)
	if pod == nil {
		return
	}
	query := r.URL.Query()
	options, err := readOptions(query, time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	read, err := pod.findLog(r.PathValue("container"), query.Get("previous") == "true")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	out := flushing{w, http.NewResponseController(w)}
	_ = out.control.Flush() // a follower sees that it is connected
	if err := read(r.Context(), out, options); err != nil {
		s.k.log.Debug("log request", "pod", pod.pod().Name, "error", err)
	}
}

// flushing sends what is written at once.
type flushing struct {
	w       io.Writer
	control *http.ResponseController
}

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}

// readOptions are those of a request for logs.
func readOptions(query url.Values, now time.Time) (o logs.ReadOptions, err error) {
	o = logs.ReadOptions{Follow: query.Get("follow") == "true", Timestamps: query.Get("timestamps") == "true", Tail: -1}
	number := func(name string, into *int64) {
		if text := query.Get(name); text != "" && err == nil {
			if *into, err = strconv.ParseInt(text, 10, 64); err != nil || *into < 0 {
				err = fmt.Errorf("%s %q is not a number from 0", name, text)
			}
		}
	}
	since := int64(-1)
	number("tailLines", &o.Tail)
	number("limitBytes", &o.LimitBytes)
	number("sinceSeconds", &since)
	if err != nil {
		return o, err
	}
	if since >= 0 {
		o.Since = now.Add(-time.Duration(since) * time.Second)
	}
	if text := query.Get("sinceTime"); text != "" {
		if o.Since, err = time.Parse(time.RFC3339, text); err != nil {
			return o, fmt.Errorf("sinceTime: %w", err)
		}
	}
	switch query.Get("stream") {
	case "Stdout":
		o.Stream = "stdout"
	case "Stderr":
		o.Stream = "stderr"
	}
	return o, nil
}

// findLog is the log of a container's newest run, or of the one before.
func (w *worker) findLog(name string, previous bool) (func(context.Context, io.Writer, logs.ReadOptions) error, error) {
	if w.container(name) == nil {
		return nil, fmt.Errorf("container %q is not in pod %q", name, w.pod().Name)
	}
	w.runsMu.Lock()
	defer w.runsMu.Unlock()
	dir := filepath.Join(w.log, name)
	attempt := lastAttempt(dir)
	if previous {
		attempt--
	}
	path := logs.Path(dir, attempt)
	//nolint:gosec // the name is that of a container, which has no slash
	if _, err := os.Stat(path); attempt < 0 || err != nil {
		if previous {
			return nil, fmt.Errorf("previous terminated container %q in pod %q not found", name, w.pod().Name)
		}
		return nil, fmt.Errorf("container %q in pod %q is waiting to start: %s", name, w.pod().Name, w.waitsFor(name))
	}
	if live := w.logs[path]; live != nil {
		return live.Read, nil
	}
	return func(ctx context.Context, out io.Writer, o logs.ReadOptions) error {
		return logs.Read(ctx, path, out, o)
	}, nil
}

// lastAttempt is the number of the newest log, -1 when there is none.
func lastAttempt(dir string) int32 {
	entries, _ := os.ReadDir(dir)
	last := int32(-1)
	for _, e := range entries {
		var n int32
		if _, err := fmt.Sscanf(e.Name(), "%d.log", &n); err == nil {
			last = max(last, n)
		}
	}
	return last
}

// waitsFor is why a container has not begun.
func (w *worker) waitsFor(name string) string {
	s := w.pod().Status
	for _, c := range slices.Concat(s.InitContainerStatuses, s.ContainerStatuses) {
		if c.Name == name && c.State.Waiting != nil {
			return c.State.Waiting.Reason
		}
	}
	return "ContainerCreating"
}
