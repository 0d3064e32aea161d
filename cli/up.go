package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/local"
)

// upFlags are the flags of `lateen up` as they are written.
type upFlags struct {
	resolve, publish, set, image                []string
	state, meshConfig, logLevels, binary, proxy string
	detach, pods                                bool
	apiPort                                     int
}

func newUp() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up [PATH...]",
		Short: "Run a mesh on this machine, with the YAML of the paths",
		Long: `Run a mesh on this machine, with the YAML of the paths.

PATH is a file, a directory or "-" for standard input. Of a directory with a
kustomization.yaml its resources count. Files are watched; a change is in force within a
second.

Where the paths hold a workload (a Deployment, a Pod, a Job …), where there is no path,
or with --pods, the mesh runs pods and has a Kubernetes API: the kubeconfig is in the
state directory, and lateen get, apply, logs, exec … use it. An image is a command of
this machine: those of the samples are built in, --image says others.

Else it is control plane and ingress gateway alone. The gateway listens on the ports
of the Gateways, and on port 80 in any case. A port of this machine that is taken or
not allowed is published as port + 8000.`,
		RunE: func(cmd *cobra.Command, paths []string) error {
			o, err := f.options(paths)
			if err != nil {
				return err
			}
			if !f.detach {
				return local.Replace(o)
			}
			o.Stdin = cmd.InOrStdin()
			ready, err := local.Detach(cmd.Context(), o)
			if err != nil {
				return err
			}
			ready.Print(cmd.OutOrStdout(), cmd.ErrOrStderr())
			return nil
		},
	}
	set := cmd.Flags()
	set.StringArrayVar(&f.resolve, "resolve", nil, "HOST=ADDR[,ADDR]: addresses of a name instead of DNS; ADDR \"host\" is this machine")
	set.StringArrayVar(&f.publish, "publish", nil, "PORT=HOSTPORT: where this machine has a port of the gateway")
	set.StringVar(&f.state, "state", "", "directory of the mesh: sockets, logs, last good configuration (default ~/.local/state/lateen/default)")
	set.StringVar(&f.meshConfig, "meshConfig", "", "file with the MeshConfig, watched")
	set.StringArrayVar(&f.set, "set", nil, "meshConfig.FIELD=VALUE over the MeshConfig; with pods all that istioctl install takes")
	set.StringVar(&f.logLevels, "log_output_level", "", "levels of the control plane: SCOPE:LEVEL,…")
	set.StringVar(&f.binary, "bin", "", "directory of our programs (default that of this one)")
	set.StringVar(&f.proxy, "proxy", "", "program of the proxies, any Envoy (default ours)")
	set.BoolVar(&f.pods, "pods", false, "run pods and the Kubernetes API although no file has a workload")
	set.IntVar(&f.apiPort, "api-port", 0, "port of the Kubernetes API on 127.0.0.1 (default 6443, or a free one)")
	set.StringArrayVar(&f.image, "image", nil, "IMAGE=COMMAND or IMAGE=oci:DIR: what an image runs on this machine")
	set.BoolVar(&f.detach, "detach", false, "return when the mesh is ready; lateen down ends it")
	return cmd
}

func (f upFlags) options(paths []string) (local.Options, error) {
	o := local.Options{Paths: paths, MeshConfig: f.meshConfig, Set: f.set, LogLevels: f.logLevels, Bin: f.binary, Proxy: f.proxy,
		Resolve: map[string][]netip.Addr{}, Publish: map[int]int{}, Images: map[string]string{}, Pods: f.pods, APIPort: f.apiPort}
	var err error
	if o.State, err = stateDir(f.state); err != nil {
		return o, err
	}
	for _, item := range f.resolve {
		host, addrs, err := parseResolve(item)
		if err != nil {
			return o, wrongUsage(fmt.Errorf("--resolve %s: %w", item, err), "for example: --resolve httpbin.org=127.0.0.1")
		}
		o.Resolve[host] = addrs
	}
	for _, item := range f.publish {
		port, host, err := parsePublish(item)
		if err != nil {
			return o, wrongUsage(fmt.Errorf("--publish %s: %w", item, err), "for example: --publish 80=8080")
		}
		o.Publish[port] = host
	}
	for _, item := range f.image {
		image, command, ok := strings.Cut(item, "=")
		if !ok || image == "" || command == "" {
			return o, wrongUsage(fmt.Errorf("--image %s: must be IMAGE=COMMAND or IMAGE=oci:DIR", item), "for example: --image my/app:v1='/usr/local/bin/app --port 8080'")
		}
		o.Images[image] = command
	}
	return o, nil
}

// parseResolve reads HOST=ADDR[,ADDR]. "host" is this machine as the gateway
// reaches it.
func parseResolve(item string) (host string, addrs []netip.Addr, err error) {
	host, list, ok := strings.Cut(item, "=")
	if !ok || host == "" {
		return "", nil, errors.New("must be HOST=ADDR[,ADDR]")
	}
	for text := range strings.SplitSeq(list, ",") {
		if text == "host" {
			text = "127.0.0.1"
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return "", nil, fmt.Errorf("%q is not an IP address or \"host\"", text)
		}
		addrs = append(addrs, a.Unmap())
	}
	return host, addrs, nil
}

func parsePublish(item string) (port, host int, err error) {
	left, right, ok := strings.Cut(item, "=")
	if !ok {
		return 0, 0, errors.New("must be PORT=HOSTPORT")
	}
	p, err1 := strconv.ParseUint(left, 10, 16)
	h, err2 := strconv.ParseUint(right, 10, 16)
	if err1 != nil || err2 != nil || p == 0 || h == 0 {
		return 0, 0, errors.New("ports are 1 to 65535")
	}
	return int(p), int(h), nil
}

// stateDir is the directory of --state, absolute.
func stateDir(flag string) (string, error) {
	if flag == "" {
		return local.DefaultState()
	}
	return filepath.Abs(flag)
}

func newDown() *cobra.Command {
	var state string
	cmd := &cobra.Command{
		Use: "down", Short: "End the mesh of a state directory", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := stateDir(state)
			if err != nil {
				return err
			}
			if err := local.Down(context.WithoutCancel(cmd.Context()), dir); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "mesh ended")
			return err
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "directory of the mesh (default ~/.local/state/lateen/default)")
	return cmd
}
