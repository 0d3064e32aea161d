package network

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/lateen-mesh/lateen/local/outside"
)

// The tests of TestMesh run in a child that has namespaces of its own, once as root and
// once as an ordinary user; their results are repeated by the parent.
const (
	roleEnv    = "LATEEN_TEST_ROLE"    // launcher: start the child as whoever this is; inside: be the child
	machineEnv = "LATEEN_TEST_MACHINE" // to the child: addresses of what the launcher serves
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMesh(t *testing.T) {
	switch os.Getenv(roleEnv) {
	case "inside":
		for _, c := range cases() {
			t.Run(c.name, c.run)
		}
	case "launcher":
		launch(t, os.Geteuid() != 0)
	default:
		t.Run("root", func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			launch(t, false)
		})
		t.Run("user", func(t *testing.T) {
			if os.Geteuid() != 0 {
				launch(t, true)
				return
			}
			asNobody(t)
		})
	}
}

// asNobody runs the launcher as an ordinary user.
func asNobody(t *testing.T) {
	dir, err := os.MkdirTemp("", "lateen")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // others run the copy
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "network.test")
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, arguments()...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), roleEnv+"=launcher", "TMPDIR=/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	repeat(t, cmd)
}

// arguments select the same tests in a child.
func arguments() []string {
	all := []string{"-test.v=true", "-test.timeout=60s", "-test.run=^TestMesh$"}
	for _, a := range os.Args {
		if pattern, ok := strings.CutPrefix(a, "-test.run="); ok && strings.Contains(pattern, "/") {
			parts := strings.Split(pattern, "/")
			if len(parts) > 2 && os.Getenv(roleEnv) == "" { // TestMesh/user/name
				all[2] = "-test.run=^TestMesh$/" + strings.Join(parts[2:], "/")
			} else if os.Getenv(roleEnv) != "" {
				all[2] = a
			}
		}
	}
	return all
}

// launch starts the child in namespaces, and is this machine for it.
func launch(t *testing.T, user bool) {
	theirs, ours, err := outside.Pair()
	if err != nil {
		t.Fatal(err)
	}
	machine := serveMachine(t)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- outside.Serve(ctx, ours, outside.Options{Servers: []string{machine.dns}, Resolve: map[string][]netip.Addr{
			"given.test": {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")},
		}})
	}()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, arguments()...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = append(os.Environ(), roleEnv+"=inside", machineEnv+"="+machine.String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	if user {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	repeat(t, cmd)
	_ = theirs.Close()
}

var result = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): TestMesh/(\S+) `)

// repeat runs a child's tests and makes their results those of this test.
func repeat(t *testing.T, cmd *exec.Cmd) {
	var all bytes.Buffer
	read, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&all, write), io.MultiWriter(&all, write)
	finished := make(chan error, 1)
	go func() {
		err := cmd.Run()
		_ = write.Close()
		finished <- err
	}()
	failed, known := false, map[string]bool{}
	lines := bufio.NewScanner(read)
	for lines.Scan() {
		m := result.FindStringSubmatch(lines.Text())
		if m == nil || known[m[2]] { // a launcher repeats its child
			continue
		}
		known[m[2]] = true
		t.Run(m[2], func(t *testing.T) {
			switch m[1] {
			case "FAIL":
				failed = true
				t.Fail()
			case "SKIP":
				t.Skip("see the child's words")
			}
		})
	}
	err := <-finished
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("namespaces are not permitted here: %v", err)
	}
	if err != nil || failed || testing.Verbose() {
		t.Logf("child: %v\n%s", err, all.String())
	}
	if err != nil && !failed || err == nil && len(known) == 0 {
		t.Errorf("the child ended with %v before its tests", err)
	}
}

// A machine is what is outside: services on its loopback.
type machine struct {
	tcp, udp, refused, dns, six string // HOST:PORT; six is TCP by IPv6, or none
}

func (m machine) String() string {
	return strings.Join([]string{m.tcp, m.udp, m.refused, m.dns, m.six}, " ")
}

// theMachine is that of the launcher.
func theMachine(t *testing.T) machine {
	t.Helper()
	w := strings.Fields(os.Getenv(machineEnv))
	if len(w) != 5 {
		t.Fatalf("%s=%q", machineEnv, w)
	}
	return machine{w[0], w[1], w[2], w[3], w[4]}
}

func serveMachine(t *testing.T) machine {
	t.Helper()
	listen := func(at string) net.Listener {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l, closed, atSix := listen("127.0.0.1:0"), listen("127.0.0.1:0"), "none"
	during(t, l, func() { echoAll(l) })
	if six, err := net.Listen("tcp", "[::1]:0"); err == nil {
		during(t, six, func() { echoAll(six) })
		atSix = six.Addr().String()
	}
	_ = closed.Close()
	packets := func(answer func([]byte, net.Addr) []byte) net.PacketConn {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		during(t, c, func() { answerAll(c, answer) })
		return c
	}
	udp := packets(func(b []byte, _ net.Addr) []byte { return append([]byte("echo "), b...) })
	dns := packets(func(b []byte, _ net.Addr) []byte { return answerDNS(b) })
	return machine{l.Addr().String(), udp.LocalAddr().String(), closed.Addr().String(), dns.LocalAddr().String(), atSix}
}

// echoAll says who called, then repeats what it is told, until the listener is closed.
func echoAll(l net.Listener) {
	var open sync.Map
	var serving sync.WaitGroup
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		open.Store(c, nil)
		serving.Go(func() {
			defer open.Delete(c)
			defer c.Close()
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = fmt.Fprintf(c, "%s %s\n", l.Addr(), host)
			_, _ = io.Copy(c, c)
		})
	}
	open.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
	serving.Wait()
}

// during runs something until the test ends, for which it closes c.
func during(t *testing.T, c io.Closer, run func()) {
	done := make(chan struct{})
	go func() { defer close(done); run() }()
	t.Cleanup(func() { _ = c.Close(); <-done })
}

func answerAll(c net.PacketConn, answer func([]byte, net.Addr) []byte) {
	buf := make([]byte, 65535)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if reply := answer(buf[:n], from); reply != nil {
			_, _ = c.WriteTo(reply, from)
		}
	}
}

// answerDNS knows names below .test: outside has an address, big has many, none does not exist.
func answerDNS(raw []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(raw) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.Additionals = true, nil
	var n int
	switch q.Name.String() {
	case "outside.test.":
		n = 1
	case "big.test.":
		n = 200
	default:
		m.RCode = dnsmessage.RCodeNameError
	}
	if q.Type != dnsmessage.TypeA {
		n = 0
	}
	for i := range n {
		a := dnsmessage.AResource{A: [4]byte{192, 0, 2, byte(i)}}
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}, Body: &a})
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

// newMesh is a mesh in this process's namespace, with the launcher outside.
func newMesh(t *testing.T, change ...func(*Options)) *mesh {
	t.Helper()
	o := Options{Outside: theOutside(t)}
	for _, c := range change {
		c(&o)
	}
	m, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m.(*mesh)
}

func theOutside(t *testing.T) *outside.Client {
	t.Helper()
	fd, err := unix.FcntlInt(3, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := outside.NewClient(os.NewFile(uintptr(fd), "outside"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func newPod(t *testing.T, m *mesh) *pod {
	t.Helper()
	p, err := m.AddPod(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p.(*pod)
}

// listenIn listens in a pod and echoes there.
func listenIn(t *testing.T, p *pod, address string) net.Listener {
	t.Helper()
	var l net.Listener
	err := within(p.mesh.home, p.ns, func() (err error) { l, err = net.Listen("tcp", address); return err })
	if err != nil {
		t.Fatal(err)
	}
	during(t, l, func() { echoAll(l) })
	return l
}

// packetsIn answers datagrams in a pod.
func packetsIn(t *testing.T, p *pod, address string, answer func([]byte, net.Addr) []byte) {
	t.Helper()
	var c net.PacketConn
	err := within(p.mesh.home, p.ns, func() (err error) { c, err = net.ListenPacket("udp", address); return err })
	if err != nil {
		t.Fatal(err)
	}
	during(t, c, func() { answerAll(c, answer) })
}

// patience bounds what never comes when something is wrong.
const patience = 10 * time.Second

type dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// greeting is the first line that an address says, "" with an error.
func greeting(t *testing.T, d dialer, address string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(line), nil
}

// reached fails unless the address is served by want: its listening address and the
// caller's as it saw it.
func reached(t *testing.T, d dialer, address, want string) {
	t.Helper()
	got, err := greeting(t, d, address)
	if err != nil || got != want {
		t.Errorf("%s: %q, %v, want %q", address, got, err, want)
	}
}

// lookedUp asks the mesh's DNS from a pod.
func lookedUp(t *testing.T, d dialer, network, name string, kind dnsmessage.Type) dnsmessage.Message {
	t.Helper()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.DialContext(t.Context(), network, dnsAddress+":53")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	reply := make([]byte, 65535)
	if network == "tcp" {
		_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(raw))), raw...))
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			t.Fatal(err)
		}
		reply = reply[:binary.BigEndian.Uint16(size[:])]
		_, err = io.ReadFull(c, reply)
	} else {
		_, _ = c.Write(raw)
		var n int
		n, err = c.Read(reply)
		reply = reply[:n]
	}
	if err != nil {
		t.Fatal(err)
	}
	var out dnsmessage.Message
	if err := out.Unpack(reply); err != nil {
		t.Fatal(err)
	}
	if out.ID != 7 {
		t.Errorf("answer to question %d", out.ID)
	}
	return out
}
