package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Paths of what TestMain builds: the server, and kubectl where none is installed.
var (
	serverBinary  string
	kubectlBinary string
)

// ordinary is a user without privileges; root the one that usually runs tests in a container.
const ordinary = 65534

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run builds the programs, runs the tests and looks for goroutines that they left.
func run(m *testing.M) int {
	if os.Getenv("LATEEN_ASK") != "" {
		return m.Run() // TestAskSocket alone, in a process of its own
	}
	dir, err := os.MkdirTemp("", "lateen-apiserver-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755) // binaries are run as another user, too
	serverBinary = filepath.Join(dir, "lateen-apiserver")
	builds := map[string]string{serverBinary: "."}
	if kubectlBinary, err = exec.LookPath("kubectl"); err != nil {
		kubectlBinary = filepath.Join(dir, "kubectl")
		builds[kubectlBinary] = "k8s.io/kubernetes/cmd/kubectl"
	}
	// A program of Kubernetes that is built from a module does not know its own version.
	const ldflags = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3"
	for binary, from := range builds {
		command := exec.Command("go", "build", "-ldflags", ldflags, "-o", binary, from) // compiled as the tests are, so once
		if out, err := command.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", from, err, out)
			return 1
		}
	}
	status := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(goleak.IgnoreAnyFunction("k8s.io/klog/v2.(*flushDaemon).run.func1")); err != nil && status == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

// A server is a running lateen-apiserver.
type server struct {
	t       *testing.T
	dir     string // holds state, socket, kubeconfig, and is the home of kubectl
	uid     int
	args    []string
	process *exec.Cmd
	exited  chan struct{} // closed when the process is gone
	stderr  *bytes.Buffer
	address string // of the TLS port
}

// start runs a server as the user until the test ends, and returns when it serves.
func start(t *testing.T, uid int, args ...string) *server {
	t.Helper()
	if uid != os.Geteuid() && os.Geteuid() != 0 {
		t.Skip("only root can start a process as another user")
	}
	dir, err := os.MkdirTemp("", "lateen-api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	for i, arg := range args {
		if path, err := filepath.Abs(arg); err == nil && strings.HasPrefix(arg, "testdata/") {
			args[i] = path // the server runs elsewhere
		}
	}
	s := &server{t: t, dir: dir, uid: uid, args: args}
	t.Cleanup(s.stop)
	s.restart()
	return s
}

func (s *server) path(name string) string { return filepath.Join(s.dir, name) }

// restart starts the process on the same state, ending a running one first.
func (s *server) restart() {
	s.t.Helper()
	s.stop()
	s.process = s.command(serverBinary, append([]string{"--state", s.path("state"), "--listen", "127.0.0.1:0",
		"--socket", s.path("api.sock"), "--kubeconfig", s.path("kubeconfig"), "--kubelet", s.path("node.sock")}, s.args...)...)
	s.stderr = &bytes.Buffer{}
	s.process.Stderr = s.stderr
	stdout, err := s.process.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	var line struct {
		Ready  bool   `json:"ready"`
		Listen string `json:"listen"`
	}
	err = json.NewDecoder(stdout).Decode(&line)
	exited, process := make(chan struct{}), s.process
	go func() { process.Wait(); close(exited) }()
	s.exited, s.address = exited, line.Listen
	if err != nil || !line.Ready {
		<-exited
		s.t.Fatalf("no ready line (%v); stderr:\n%s", err, s.stderr)
	}
}

// stop ends the process in order; kill does not.
func (s *server) stop() { s.end(syscall.SIGTERM) }
func (s *server) kill() { s.end(syscall.SIGKILL) }

func (s *server) end(signal syscall.Signal) {
	if s.process == nil {
		return
	}
	s.process.Process.Signal(signal)
	<-s.exited
	s.process = nil
}

// command prepares a process of the server's user, at home in the server's directory.
func (s *server) command(name string, args ...string) *exec.Cmd {
	command := exec.Command(name, args...)
	command.Dir = s.dir
	command.Env = []string{"HOME=" + s.dir, "KUBECONFIG=" + s.path("kubeconfig"), "PATH=" + os.Getenv("PATH"), "TZ=UTC",
		"EDITOR=sed -i s/unedited/edited/"}
	if s.uid != os.Geteuid() {
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(s.uid), Gid: uint32(s.uid)}}
	}
	return command
}

// kubectl runs stock kubectl and returns what it printed, both streams in one.
func (s *server) kubectl(stdin string, args ...string) (string, error) {
	command := s.command(kubectlBinary, args...)
	command.Stdin = strings.NewReader(stdin)
	out, err := command.CombinedOutput()
	return string(out), err
}

// must runs kubectl and expects it to succeed.
func (s *server) must(stdin string, args ...string) string {
	s.t.Helper()
	out, err := s.kubectl(stdin, args...)
	if err != nil {
		s.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// config returns the administrator's configuration, as kubectl has it.
func (s *server) config() *rest.Config {
	s.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.path("kubeconfig"))
	if err != nil {
		s.t.Fatal(err)
	}
	config.QPS = -1
	return config
}

func (s *server) client() *kubernetes.Clientset {
	s.t.Helper()
	client, err := kubernetes.NewForConfig(s.config())
	if err != nil {
		s.t.Fatal(err)
	}
	return client
}

// socket returns a client of the unix socket, as our own parts have it.
func (s *server) socket() *http.Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.path("api.sock"))
	}}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// get asks for a path and returns status and body.
func get(t *testing.T, client *http.Client, url string) (int, string) {
	t.Helper()
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// eventually waits until the condition holds: the API's parts work on their own time.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ticker, limit := time.NewTicker(5*time.Millisecond), time.NewTimer(time.Minute)
	defer ticker.Stop()
	defer limit.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-limit.C:
			t.Fatal("never came true: " + what)
		}
	}
}

func testdata(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
