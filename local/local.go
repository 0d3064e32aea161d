// Package local is the engine without Kubernetes: Up supervises the control plane
// and the ingress gateway of one mesh as processes of this machine, until its
// context ends.
//
//	Up ─► state (lock, sockets, logs) ─► ports ─► resolver ─► istiod ─► gateway ─► ready
//
// A mesh lives in a state directory, so several run side by side. The two
// processes meet on a Unix socket in there. One that ends is started again, with
// back-off; the gateway serves on while the control plane is away. None outlives
// the supervisor, even when that is killed.
//
// Where the ports of Gateways are on this machine is decided at the start
// (ports.go) and told to the control plane by the gateway's node metadata. Names
// given by Options.Resolve are answered by a small DNS server on loopback
// (outside.Resolver) that the gateway's bootstrap points at.
package local

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
)

const (
	gatewayName      = "istio-ingressgateway"
	gatewayNamespace = "istio-system"
	// gatewayAddress is the gateway's in its node. Not 127.0.0.1: an entry with that
	// endpoint would make the gateway the workload behind it.
	gatewayAddress = "127.0.2.1"
	// istioVersion is the release whose behaviour the node claims.
	istioVersion = "1.31.0"
)

// Options are the settings of one mesh.
type Options struct {
	Paths      []string                // YAML files, directories, "-"
	State      string                  // directory; made when missing
	MeshConfig string                  // file, "" for none
	Set        []string                // meshConfig.FIELD=VALUE
	Resolve    map[string][]netip.Addr // addresses by host name
	Publish    map[int]int             // port of a Gateway → port of this machine
	LogLevels  string                  // of the control plane, as --log_output_level
	Stdin      io.Reader               // what "-" means
	Stdout     io.Writer               // what the processes print, each line with its part
	Ready      func(Ready)             // called once, when traffic can flow
	Bin        string                  // directory of our programs; "" is that of this program
	Proxy      string                  // program of a gateway without pods, any Envoy; "" is lateen-proxy
	Pods       bool                    // run the Kubernetes API and pods although no file has a workload
	APIPort    int                     // of the Kubernetes API; 0 is 6443, or another one where that is in use
	Images     map[string]string       // command, or oci:DIR, by image
	Progress   func(string)            // called with what the start is at; may be nil
}

// An Error is an error with what to do about it.
type Error struct {
	Err  error
	Hint string
}

// Error is the text without the hint.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error without the hint.
func (e *Error) Unwrap() error { return e.Err }

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
