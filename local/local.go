// Package local is the engine without a cluster: Up supervises the parts of one mesh as
// processes of this machine, until its context ends.
//
//	Up ─► state (lock, sockets, logs) ─► istiod ─► gateway ─► ready
//	                                  └► Kubernetes API, node ─► the mesh's own objects ─► objects of files ─► pods ─► ready
//
// A mesh lives in a state directory, so several run side by side. Its parts meet on
// Unix sockets in there. One that ends is started again, with back-off; the others
// serve on meanwhile. None outlives the supervisor, even when that is killed.
//
// Where workloads are asked for there are a Kubernetes API (local/apiserver) and a node
// (local/node), and control plane and gateways are pods, of the objects that package install
// renders (mesh.go). Else they are processes of this machine: where
// the ports of Gateways are is decided at the start then (ports.go) and told to the
// control plane by the gateway's node metadata. Names given by Options.Resolve are
// answered to it by an outside.Resolver, and to pods by the outside half (inside.go).
//
// The supervisor is a program of its own, lateen-engine, since it stays: Replace becomes
// it, Detach starts it, Command is its command line. ReadStatus and Down find it by its
// state directory.
package local

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
)

const (
	gatewayName      = "istio-ingressgateway"
	gatewayNamespace = "istio-system"
	// gatewayAddress is the gateway's in its node. Not 127.0.0.1: an entry with that
	// endpoint would make the gateway the workload behind it.
	gatewayAddress = "127.0.2.1"
)

// Options are the settings of one mesh. As JSON they are what a supervisor takes over from
// the process that starts it.
type Options struct {
	Paths      []string                // YAML files, directories, "-"
	State      string                  // directory; made when missing
	MeshConfig string                  // file, watched; "" for none
	Set        []string                // meshConfig.FIELD=VALUE; with pods what istioctl install takes
	Resolve    map[string][]netip.Addr // addresses by host name
	Publish    map[int]int             // port of a Gateway → port of this machine
	LogLevels  string                  // of the control plane, as --log_output_level
	Bin        string                  // directory of our programs; "" is that of this program
	Proxy      string                  // program of the gateway without pods, of the proxies in pods: any Envoy; "" is ours
	Pods       bool                    // run the Kubernetes API and pods although no file has a workload
	APIPort    int                     // of the Kubernetes API; 0 is 6443, or another one where that is in use
	Images     map[string]string       // command, or oci:DIR, by image

	Stdin    io.Reader    `json:"-"` // what "-" means
	Stdout   io.Writer    `json:"-"` // what the processes print, each line with its part
	Ready    func(Ready)  `json:"-"` // called once, when traffic can flow
	Progress func(string) `json:"-"` // called with what the start is at; may be nil
}

func (o Options) readsStdin() bool { return slices.Contains(o.Paths, "-") }

// An Error is an error with what to do about it.
type Error struct {
	Err  error
	Hint string
}

// Error is the text without the hint.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error without the hint.
func (e *Error) Unwrap() error { return e.Err }

// HintOf is what to do about an error, "" where nobody knows.
func HintOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Hint
	}
	return ""
}

// WriteError writes an error for people: a line "error: …" and, where there is one, a line
// "hint: …".
func WriteError(w io.Writer, err error) {
	fmt.Fprintln(w, "error:", err)
	if hint := HintOf(err); hint != "" {
		fmt.Fprintln(w, "hint:", hint)
	}
}

// DefaultState is where the mesh of a user lives that names no state directory.
func DefaultState() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "lateen", "default"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", &Error{err, "say where the mesh keeps its state: --state DIR"}
	}
	return filepath.Join(home, ".local", "state", "lateen", "default"), nil
}

// binary finds a program of ours beside this one.
func (o Options) binary(name string) (string, error) {
	dir := o.Bin
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		if self, err = filepath.EvalSymlinks(self); err != nil {
			return "", err
		}
		dir = filepath.Dir(self)
	}
	return executable(filepath.Join(dir, name))
}

func executable(path string) (string, error) {
	if info, err := os.Stat(path); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
		return "", &Error{errors.New(path + " is not there"), "build all programs into one directory: make build"}
	}
	return path, nil
}
