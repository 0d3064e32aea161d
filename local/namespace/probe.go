package namespace

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Found is what a machine permits beyond what is needed.
type Found struct {
	TProxy bool // without it pods send no UDP to the outside
}

// A Refusal is why pods cannot be run on this machine. It is for people.
type Refusal struct {
	Err  error
	Hint string // what to do about it
}

// Error is cause without cure, in one line.
func (r *Refusal) Error() string { return "pods cannot run here: " + r.Err.Error() }

// Unwrap returns the error of the step that failed.
func (r *Refusal) Unwrap() error { return r.Err }

// probeArgument makes a program that calls Child the child of Probe.
const probeArgument = "lateen-probe-namespaces"

// The steps of a probe, in their order.
const (
	stepClone  = "clone"
	stepMap    = "uid_map"
	stepMount  = "mount"
	stepProc   = "proc"
	stepLink   = "link"
	stepRules  = "rules"
	stepTProxy = "tproxy"
)

// Probe tries in a child what Command and its program will do, and returns the first refusal
// (a *Refusal). The program's main must begin with Child.
func Probe(ctx context.Context, program string) (Found, error) {
	cmd := Command(ctx, program, probeArgument)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	runtime.LockOSThread() // until the child has ended, which dies with the thread
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return Found{}, refuse(cloneStep(ctx, program, err), err, sysctl)
	}
	if err := cmd.Wait(); err != nil {
		return Found{}, fmt.Errorf("probe for namespaces: %w", err)
	}
	var failed failure
	if err := json.Unmarshal(out.Bytes(), &failed); err != nil {
		return Found{}, fmt.Errorf("probe for namespaces: %w", err)
	}
	switch failed.Step {
	case "":
		return Found{TProxy: true}, nil
	case stepTProxy:
		return Found{}, nil
	}
	return Found{}, refuse(failed.Step, &stepError{failed.Text, syscall.Errno(failed.Errno)}, sysctl)
}

// cloneStep tells whether the kernel refused the namespaces or the users in them: then a user
// namespace without users can be made.
func cloneStep(ctx context.Context, program string, err error) string {
	if os.Geteuid() == 0 || !errors.Is(err, os.ErrPermission) {
		return stepClone
	}
	cmd := exec.CommandContext(ctx, program, probeArgument)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, Pdeathsig: syscall.SIGKILL}
	if cmd.Start() != nil {
		return stepClone
	}
	_ = cmd.Wait()
	return stepMap
}

// A failure is what the child of a probe reports; all empty is success.
type failure struct {
	Step, Text string
	Errno      int
}

// A stepError is an error of the child, with its number.
type stepError struct {
	text  string
	errno syscall.Errno
}

func (e *stepError) Error() string { return e.text }

func (e *stepError) Unwrap() error { return e.errno }

// Child is the child of Probe when the program was started as that, and then does not return.
func Child() {
	if len(os.Args) != 2 || os.Args[1] != probeArgument {
		return
	}
	var failed failure
	if step, err := try(); err != nil {
		failed = failure{Step: step, Text: err.Error()}
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			failed.Errno = int(errno)
		}
	}
	if json.NewEncoder(os.Stdout).Encode(failed) != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// try does all steps and returns the first that fails.
func try() (string, error) {
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{stepMount, ownMounts},
		{stepMount, tryMount},
		{stepProc, freshProc},
		{stepLink, loopbackUp},
		{stepLink, tryLink},
		{stepRules, func() error { return tryRule(redirection()) }},
		{stepTProxy, func() error { return tryRule(transparent()) }},
	} {
		if err := step.do(); err != nil {
			return step.name, err
		}
	}
	return "", nil
}

func tryMount() error {
	return wrap("mount a tmpfs", unix.Mount("tmpfs", os.TempDir(), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, ""))
}

func tryLink() error {
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "probe0"}, PeerName: "probe1"}
	return wrap("add a veth link", netlink.LinkAdd(link))
}

// tryRule sets one rule in a table of its own. It goes with the namespace.
func tryRule(chain *nftables.Chain, rule []expr.Any) error {
	conn, err := nftables.New()
	if err != nil {
		return wrap("open nf_tables", err)
	}
	chain.Table = conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: chain.Name})
	conn.AddRule(&nftables.Rule{Table: chain.Table, Chain: conn.AddChain(chain), Exprs: rule})
	return wrap("set nftables rules for "+chain.Name, conn.Flush())
}

// redirection sends TCP to a port, as a sidecar wants it.
func redirection() (*nftables.Chain, []expr.Any) {
	return &nftables.Chain{
		Name: "redirect", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
	}, append(ofProtocol(unix.IPPROTO_TCP), port(15001), &expr.Redir{RegisterProtoMin: 1})
}

// transparent sends UDP to a socket, as the way out wants it.
func transparent() (*nftables.Chain, []expr.Any) {
	return &nftables.Chain{
			Name: "tproxy", Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle,
		}, append(ofProtocol(unix.IPPROTO_UDP), port(15101),
			&expr.TProxy{Family: unix.NFPROTO_IPV4, TableFamily: unix.NFPROTO_INET, RegPort: 1})
}

func ofProtocol(number byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}},
	}
}

func port(number uint16) expr.Any {
	return &expr.Immediate{Register: 1, Data: []byte{byte(number >> 8), byte(number)}}
}

// sysctl reads a setting of the kernel; "" is one that there is not.
func sysctl(name string) string {
	text, _ := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	return strings.TrimSpace(string(text))
}

// The settings that are looked into.
const (
	userNamespaces = "user.max_user_namespaces"
	unprivileged   = "kernel.unprivileged_userns_clone"
	restricted     = "kernel.apparmor_restrict_unprivileged_userns"
)

const inContainer = "inside a container: start that with the right to make namespaces (--privileged)"

// refuse finds cause and cure of a step's error.
func refuse(step string, err error, sysctl func(string) string) *Refusal {
	because := func(cause, hint string) *Refusal {
		return &Refusal{Err: fmt.Errorf("%s: %w: %s", step, err, cause), Hint: hint}
	}
	denied := errors.Is(err, os.ErrPermission)
	switch {
	case step == stepClone && errors.Is(err, unix.ENOSPC):
		name := exhausted(sysctl)
		return because(fmt.Sprintf("%s is %s, and so many are in use", name, sysctl(name)), fmt.Sprintf("sudo sysctl %s=15000", name))
	case step == stepClone && denied && sysctl(unprivileged) == "0":
		return because(unprivileged+" is 0", fmt.Sprintf("sudo sysctl %s=1, or run as root", unprivileged))
	case (step == stepClone || step == stepMap || step == stepMount) && denied && sysctl(restricted) == "1":
		return because("AppArmor keeps ordinary users from it ("+restricted+" is 1)", appArmor())
	case step == stepClone && errors.Is(err, unix.EINVAL):
		return because("the kernel has no such namespaces", "run a kernel with user, PID and network namespaces")
	case step == stepProc && denied:
		return because("parts of /proc are hidden, as in a container; without its own /proc nothing ends what pods leave behind", inContainer)
	case (step == stepClone || step == stepMap || step == stepMount) && denied:
		return because("this process may not make namespaces", inContainer+", else run as root")
	case step == stepLink:
		return because("pods are joined by veth links", "sudo modprobe veth")
	case step == stepRules:
		return because("traffic is redirected by nftables", "sudo modprobe -a nf_tables nft_chain_nat nft_redir nft_tproxy")
	}
	return &Refusal{Err: fmt.Errorf("%s: %w", step, err), Hint: "run as root, or use a mesh of gateways without pods"}
}

// exhausted is the limit that keeps a namespace from being made: the first that is 0, else that
// of user namespaces, of which each user has fewest.
func exhausted(sysctl func(string) string) string {
	for _, kind := range []string{"user", "net", "mnt", "pid", "uts", "ipc"} {
		if name := "user.max_" + kind + "_namespaces"; sysctl(name) == "0" {
			return name
		}
	}
	return userNamespaces
}

// appArmor is the profile that lets our programs make user namespaces, as a command.
func appArmor() string {
	dir := "/usr/local/bin"
	if self, err := os.Executable(); err == nil {
		dir = filepath.Dir(self)
	}
	profile := fmt.Sprintf(`abi <abi/4.0>, profile lateen %s/lateen{,-node,-init} flags=(unconfined) { userns, }`, dir)
	return fmt.Sprintf("echo '%s' | sudo tee /etc/apparmor.d/lateen && sudo apparmor_parser -r /etc/apparmor.d/lateen; or run as root", profile)
}
