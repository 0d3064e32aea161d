// Package node is the inner half of a mesh with pods: the network, the containers and
// the kubelet of its one node, wired together. It runs in namespaces of its own, which
// the supervisor has made, and everything that it starts ends with it.
package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"github.com/lateen-mesh/lateen/local/container"
	"github.com/lateen-mesh/lateen/local/kubelet"
	"github.com/lateen-mesh/lateen/local/kubelet/image"
	"github.com/lateen-mesh/lateen/local/namespace"
	"github.com/lateen-mesh/lateen/local/network"
	"github.com/lateen-mesh/lateen/local/outside"
	"github.com/lateen-mesh/lateen/wellknown"
)

// outsideFD is the descriptor of the conversation with the outside half.
const outsideFD = 3

// doorName is the socket below Options.Sockets on which proxies ask for sockets of this
// machine.
const doorName = "outside.sock"

// Options are the settings of a node.
type Options struct {
	API        string            // unix socket of the Kubernetes API
	APIAddress string            // where pods' requests to the API go, HOST:PORT outside
	State      string            // directory: logs and volumes
	Socket     string            // unix socket on which the API reaches this node
	Sockets    string            // directory of the sockets that proxies in pods use
	Bin        string            // directory of our programs
	Name       string            // of the Node
	Images     map[string]string // command, or oci:DIR, by image
	Proxy      string            // program of the proxies in pods, any Envoy; "" is ours
	NoUDP      bool              // the kernel has no TPROXY: pods send no UDP to the outside
}

// Command is the command line of a node.
func Command() *cobra.Command {
	var o Options
	var images []string
	cmd := &cobra.Command{
		Use: "node", Short: "Run the pods of a mesh; started by the supervisor", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Images, err = parseImages(images); err != nil {
				return err
			}
			return Run(cmd.Context(), o)
		},
	}
	set := cmd.Flags()
	set.StringVar(&o.API, "api", "", "unix socket of the Kubernetes API")
	set.StringVar(&o.APIAddress, "api-address", "", "HOST:PORT of the Kubernetes API outside, for pods")
	set.StringVar(&o.State, "state", "", "directory for logs and volumes")
	set.StringVar(&o.Socket, "socket", "", "unix socket on which the API reaches this node")
	set.StringVar(&o.Sockets, "mesh-sockets", "", "directory of the sockets that proxies in pods use")
	set.StringVar(&o.Bin, "bin", "", "directory of our programs")
	set.StringVar(&o.Name, "node", "lateen", "name of the Node")
	set.StringArrayVar(&images, "image", nil, "IMAGE=COMMAND or IMAGE=oci:DIR, may be repeated")
	set.StringVar(&o.Proxy, "proxy", "", "program of the proxies in pods, any Envoy")
	set.BoolVar(&o.NoUDP, "no-udp", false, "pods send no UDP to the outside")
	return cmd
}

func parseImages(items []string) (map[string]string, error) {
	images := map[string]string{}
	for _, item := range items {
		image, command, ok := strings.Cut(item, "=")
		if !ok {
			return nil, fmt.Errorf("--image %s: must be IMAGE=COMMAND", item)
		}
		images[image] = command
	}
	return images, nil
}

// Run runs pods until the context ends. It is called once, in the namespaces that
// namespace.Command makes.
func Run(ctx context.Context, o Options) error {
	if err := namespace.Enter(); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	for _, dir := range []string{o.State, o.Sockets} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	out, err := outside.NewClient(os.NewFile(outsideFD, "outside"))
	if err != nil {
		return fmt.Errorf("the outside half: %w", err)
	}
	defer out.Close()
	no, err := networkOptions(o)
	if err != nil {
		return err
	}
	no.Outside, no.Log = out, log
	mesh, err := network.New(ctx, no)
	if err != nil {
		return err
	}
	defer mesh.Close()
	runtime, err := container.New(container.Options{Init: filepath.Join(o.Bin, "lateen-init"), State: o.State, Log: log})
	if err != nil {
		return err
	}
	images, err := image.New(image.Options{Given: o.Images, Bin: o.Bin, Dir: filepath.Join(o.State, "images")})
	if err != nil {
		return err
	}
	k, err := kubelet.New(kubelet.Options{Config: apiConfig(o.API), Node: o.Name, Runtime: runtime, Mesh: mesh, Dir: o.State,
		Socket: o.Socket, Sockets: o.Sockets, Proxy: o.Proxy, Images: images, Version: strings.TrimPrefix(wellknown.Version(), "v"), Log: log})
	if err != nil {
		return err
	}
	return k.Run(ctx)
}

// networkOptions are the settings of the mesh's network among those of the node.
func networkOptions(o Options) (network.Options, error) {
	no := network.Options{NoUDP: o.NoUDP}
	if o.Sockets != "" {
		no.Door = filepath.Join(o.Sockets, doorName)
	}
	if o.APIAddress != "" {
		var err error
		if no.API, err = netip.ParseAddrPort(o.APIAddress); err != nil {
			return no, fmt.Errorf("--api-address: %w", err)
		}
	}
	return no, nil
}

// apiConfig reaches the API over its socket, whose owner needs no credentials.
func apiConfig(socket string) *rest.Config {
	return &rest.Config{Host: "http://api", QPS: -1, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
}
