package container

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/lateen-mesh/lateen/local/namespace"
)

// The test binary is four programs: the test, the starter of an inner half (as root or as an
// ordinary user), the inner half, in which a test runs once more, and an app in a container.
const (
	partVariable = "LATEEN_TEST_PART"
	initVariable = "LATEEN_TEST_INIT"
	// stateVariable is a state directory that the test chooses; else each Runtime has its own.
	stateVariable = "LATEEN_TEST_STATE"
	nobody        = 65534
)

func TestMain(m *testing.M) {
	namespace.Child()

	switch os.Getenv(partVariable) {
	case "app":
		os.Exit(app(os.Args[1:]))
	case "probe":
		if _, err := namespace.Probe(context.Background(), "/proc/self/exe"); err != nil {
			fmt.Print(err)
		}
		os.Exit(0)
	case "starter":
		os.Exit(startInner())
	case "inner":
		if err := namespace.Enter(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		dir, err := build()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		code := m.Run()
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/lateen-mesh/lateen/local/namespace.(*Thread).run"))
}

// build makes lateen-init and a copy of the test binary where every user can execute them.
func build() (string, error) {
	dir, err := os.MkdirTemp("", "lateen-container-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, err
	}
	os.Setenv(initVariable, filepath.Join(dir, "lateen-init"))
	cmd := exec.Command("go", "build", "-o", os.Getenv(initVariable), "../../cmd/lateen-init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build lateen-init: %w\n%s", err, out)
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return dir, err
	}
	defer self.Close()
	binary, err := os.OpenFile(filepath.Join(dir, "test"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return dir, err
	}
	defer binary.Close()
	_, err = io.Copy(binary, self)
	return dir, err
}

// startInner runs this program again in namespaces of its own.
func startInner() int {
	cmd := namespace.Command(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), partVariable+"=inner")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := namespace.NewThread().Start(cmd); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := cmd.Wait(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A way is whose rights a mesh has.
type way struct {
	name    string
	uid     int
	refusal func() (string, error) // why this way is not permitted here, or nothing
}

// ways are as root and as an ordinary user, or the latter only where we are one.
var ways = sync.OnceValue(func() []way {
	if uid := os.Getuid(); uid != 0 {
		return []way{newWay("as an ordinary user", uid)}
	}
	return []way{newWay("as root", 0), newWay("as an ordinary user", nobody)}
})

func newWay(name string, uid int) way {
	w := way{name: name, uid: uid}
	w.refusal = sync.OnceValues(func() (string, error) {
		cmd := w.starter()
		cmd.Env = append(cmd.Env, partVariable+"=probe")
		cmd.Stderr = os.Stderr
		refusal, err := cmd.Output()
		return string(refusal), err
	})
	return w
}

// starter is a command that runs tests of this binary in an inner half.
func (w way) starter(args ...string) *exec.Cmd {
	binary := testBinary()
	cmd := exec.Command(binary, args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), partVariable+"=starter", "TMPDIR=/tmp", "HOME=/")
	if w.uid != os.Getuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(w.uid), Gid: uint32(w.uid)}}
	}
	return cmd
}

// outside runs the calling test within inner halves of each way and returns true; in there it
// returns false, and the test goes on.
func outside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(partVariable) != "" {
		return false
	}
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			w.permitted(t)
			args := []string{"-test.timeout=60s", "-test.run=^" + t.Name()[:strings.IndexByte(t.Name(), '/')] + "$", "-test.v"}
			var out bytes.Buffer
			cmd := w.starter(args...)
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Run(); err != nil {
				t.Errorf("%v\n%s", err, out.String())
			} else if testing.Verbose() {
				t.Logf("%s", out.String())
			}
		})
	}
	return true
}

// permitted skips where the machine does not let this way have namespaces.
func (w way) permitted(t *testing.T) {
	t.Helper()
	why, err := w.refusal()
	if err != nil {
		t.Fatal(err)
	}
	if why != "" {
		t.Skip(why)
	}
}

// newRuntime is a Runtime in an inner half.
func newRuntime(t *testing.T) Runtime {
	t.Helper()
	state := os.Getenv(stateVariable)
	if state == "" {
		state = t.TempDir()
	}
	r, err := New(Options{Init: os.Getenv(initVariable), State: state})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// testBinary is the copy that everybody may execute.
func testBinary() string { return filepath.Join(filepath.Dir(os.Getenv(initVariable)), "test") }
