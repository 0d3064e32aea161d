// Package stage is what happens between the start of a container's first process and its
// program: the process finds itself in new namespaces, makes the root file system, gives up
// rights, and becomes the program, which so is pid 1 and costs nothing more.
//
// It is a package of few imports, since each container pays for its start: lateen-init is its
// program. Package container starts that with three descriptors beside the standard ones: the
// program itself, the configuration to read, and where to report what failed. Nothing reported
// and the descriptor closed is success.
//
//	read config ─► root (root.go, place.go) ─► session, terminal ─► rights (rights.go) ─► exec
//
// For a program that joins a running container (Config.Join) the namespaces are there already
// and the root is left as it is.
package stage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Descriptors of a stage, beside standard input, output and error.
const (
	ProgramFD = 3 + iota // lateen-init, by which it is executed
	ConfigFD             // JSON of a Config, to its end
	ReportFD             // JSON of a Failure, if there is one
)

// exitFailed is the exit code of a stage that has reported a failure.
const exitFailed = 128

// maxConfig bounds what is read of a configuration, in bytes.
const maxConfig = 16 << 20

// Path is PATH of a program that is given none.
const Path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// A Mount puts something at a path of the container's root.
type Mount struct {
	Target   string // absolute path in the container
	Source   string // directory or file outside; "" makes a tmpfs
	ReadOnly bool
}

// A Config says what to make and what to become.
type Config struct {
	Argv     []string
	Env      []string // NAME=VALUE; PATH, HOME and HOSTNAME are added when missing
	Dir      string   // "" is /
	Root     string   // directory of an unpacked image; "" shows the machine's own root
	Mounts   []Mount
	Files    map[string]string // content by name below /etc
	Hostname string
	UID, GID int
	Groups   []int // supplementary
	SetIDs   bool  // UID, GID and Groups are to be set; else the user namespace already shows them
	NetAdmin bool  // keeps NET_ADMIN and NET_RAW
	Terminal bool  // standard input is one, and becomes the controlling terminal
	Join     bool  // the container is there already
	Nested   bool  // in a user namespace
}

// A Failure is why there is no program.
type Failure struct {
	Text     string
	NotFound bool // the program does not exist
}

// Main runs a stage. It does not return.
func Main() {
	runtime.LockOSThread() // rights and death signal are the thread's that executes the program
	closeOnExec()
	err := run(os.NewFile(ConfigFD, "config"))
	failure := Failure{Text: err.Error(), NotFound: errors.Is(err, errNotFound)}
	if json.NewEncoder(os.NewFile(ReportFD, "report")).Encode(failure) != nil {
		fmt.Fprintln(os.Stderr, "lateen-init:", err)
	}
	os.Exit(exitFailed)
}

// closeOnExec keeps every descriptor but the standard ones from the program, also those that the
// runtime itself was given without asking. (Older kernels know only single ones.)
func closeOnExec() {
	if unix.CloseRange(ProgramFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC) != nil {
		for fd := ProgramFD; fd <= ReportFD; fd++ {
			unix.CloseOnExec(fd)
		}
	}
}

// run returns what kept the stage from becoming the program.
func run(from io.Reader) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("set the death signal: %w", err)
	}
	c, err := Decode(from)
	if err != nil {
		return err
	}
	unix.Umask(0)
	if !c.Join {
		if err := makeRoot(c); err != nil {
			return err
		}
	}
	if err := session(c); err != nil {
		return err
	}
	return become(c)
}

// Decode reads a configuration.
func Decode(from io.Reader) (*Config, error) {
	text, err := io.ReadAll(io.LimitReader(from, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if len(text) > maxConfig {
		return nil, fmt.Errorf("read the configuration: more than %d bytes", maxConfig)
	}
	c := &Config{}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return nil, errors.New("read the configuration: no program")
	}
	for name := range c.Files {
		if name != filepath.Base(name) || name == "." || name == ".." {
			return nil, fmt.Errorf("read the configuration: %q is no name of a file in /etc", name)
		}
	}
	for _, m := range c.Mounts {
		if !filepath.IsAbs(m.Target) || filepath.Clean(m.Target) == "/" {
			return nil, fmt.Errorf("mount %q: not a path below /", m.Target)
		}
	}
	return c, nil
}

// session makes the process lead one, with its terminal.
func session(c *Config) error {
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("start a session: %w", err)
	}
	if !c.Terminal {
		return nil
	}
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("take the terminal: %w", err)
	}
	return nil
}

// become gives up rights and executes the program.
func become(c *Config) error {
	dir := c.Dir
	if dir == "" {
		dir = "/"
	}
	env := environment(c)
	if err := dropRights(c); err != nil {
		return err
	}
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("working directory %q: %w", dir, err)
	}
	path, err := lookUp(c.Argv[0], value(env, "PATH"))
	if err != nil {
		return err
	}
	unix.Umask(0o022)
	usualSignals()
	if err := unix.Exec(path, c.Argv, env); err != nil {
		return refused(c.Argv[0], err)
	}
	return nil
}

// environment adds what a program may expect to find.
func environment(c *Config) []string {
	env := slices.Clip(c.Env)
	if value(env, "PATH") == "" {
		env = append(env, Path)
	}
	if value(env, "HOSTNAME") == "" && c.Hostname != "" {
		env = append(env, "HOSTNAME="+c.Hostname)
	}
	if value(env, "HOME") == "" {
		passwd, _ := os.ReadFile("/etc/passwd")
		dir := home(string(passwd), c.UID)
		if unix.Access(dir, unix.X_OK) != nil {
			dir = "/" // an ordinary user is root here, but may not see what is root's on the machine
		}
		env = append(env, "HOME="+dir)
	}
	if c.Terminal && value(env, "TERM") == "" {
		env = append(env, "TERM=xterm")
	}
	return env
}

// value is that of the last variable with a name, as the C library of most systems has it.
func value(env []string, name string) string {
	for _, variable := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(variable, name+"="); ok {
			return v
		}
	}
	return ""
}

// home finds a user's directory in the text of /etc/passwd; without one it is /.
func home(passwd string, uid int) string {
	for line := range strings.Lines(passwd) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) >= 6 && fields[2] == fmt.Sprint(uid) && fields[5] != "" {
			return fields[5]
		}
	}
	return "/"
}
