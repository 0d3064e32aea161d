// Package server is the local Kubernetes API: one process that serves the kinds of
// package registry and custom resources from package store, and runs upstream's
// controllers in it.
//
// Run does everything, until its context ends. A request comes in by one of three
// ways — TLS on loopback, a unix socket for our own parts, and a loopback within
// the process for its own clients — and passes upstream's chain: who is it
// (authentication.go), may it be (admission.go), registry, store. Whoever has a name
// may do everything; whoever has none gets 401.
//
// What upstream's servers do eagerly and at length is done on demand here: OpenAPI
// documents are built when asked for (openapi.go), definitions of custom resources
// that did not change since the last start are left alone (definitions.go).
package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"github.com/lateen-mesh/lateen/local/apiserver/controllers"
	"github.com/lateen-mesh/lateen/local/apiserver/pki"
	"github.com/lateen-mesh/lateen/local/apiserver/store"
)

// Options are the settings of the server.
type Options struct {
	State       string // directory of objects and keys
	Listen      string // loopback address and port of the TLS port; port 0 picks one
	Socket      string // unix socket for our own parts; "" for none
	Kubeconfig  string // file that the administrator's kubeconfig is written to; "" for none
	Kubelet     string // unix socket of the kubelet
	Definitions string // file or directory of CustomResourceDefinitions; "" for none
	ServiceCIDR string // range of Service addresses
	Node        string // name of the one node
	NodeAddress string // its address in the mesh's network
	Version     string // what `kubectl version` shows of the server

	Log   *slog.Logger
	Ready io.Writer // gets one line of JSON when the server serves
}

// Run serves until ctx ends. An error names what kept the server from starting, or
// ended it.
func Run(ctx context.Context, o Options) error {
	if err := checkListen(o.Listen); err != nil {
		return err
	}
	_, cidr, err := net.ParseCIDR(o.ServiceCIDR)
	if err != nil {
		return fmt.Errorf("service range: %w", err)
	}
	routeLogs(o.Log)
	objects, err := openStore(o)
	if err != nil {
		return err
	}
	defer func() {
		if err := objects.Close(); err != nil {
			o.Log.Error("state not written to its end", "error", err)
		}
	}()
	keys, err := pki.Open(filepath.Join(o.State, "pki"), serverNames(o, cidr))
	if err != nil {
		return err
	}
	tcp, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer tcp.Close()
	var socket net.Listener
	if o.Socket != "" {
		if socket, err = listenSocket(o.Socket, o.Log); err != nil {
			return fmt.Errorf("listen on %s: %w", o.Socket, err)
		}
		defer socket.Close()
	}

	if err := seedDefinitions(ctx, objects, o); err != nil {
		return fmt.Errorf("definitions %s: %w", o.Definitions, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { economize(ctx); return nil })
	loop := newLoopback()
	address := tcp.Addr().String()
	api, err := assemble(ctx, o, cidr, objects, keys, loop, address)
	if err != nil {
		return fmt.Errorf("assemble: %w", err)
	}
	group.Go(func() error { return serve(ctx, api.handler, keys, tcp, socket, loop, o.Log) })
	group.Go(func() error { return api.start(ctx, o, keys, address) })
	return group.Wait()
}

// start does what needs a serving API: hooks, the objects that every cluster has,
// controllers, and says when others may come.
func (a *api) start(ctx context.Context, o Options, keys *pki.Keys, address string) error {
	if err := a.run(ctx); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(a.config)
	if err != nil {
		return err
	}
	node := controllers.Node{Name: o.Node, Address: o.NodeAddress, Version: o.Version}
	if err := controllers.EnsureObjects(ctx, client, node, a.serviceCIDR); err != nil {
		return ended(ctx, fmt.Errorf("default objects: %w", err))
	}
	if o.Kubeconfig != "" {
		if err := keys.WriteKubeconfig(o.Kubeconfig, address); err != nil {
			return err
		}
	}
	if err := json.NewEncoder(o.Ready).Encode(readyLine{true, address}); err != nil {
		return fmt.Errorf("ready: %w", err)
	}
	// Definitions take a second when they are new; pods need not wait for them.
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := a.applyDefinitions(ctx, o); err != nil {
			return ended(ctx, fmt.Errorf("definitions %s: %w", o.Definitions, err))
		}
		a.definitionsApplied.Store(true)
		return nil
	})
	group.Go(func() error {
		return ended(ctx, controllers.Run(ctx, controllers.Options{
			Config: a.config, Client: client, Informers: a.informers,
			Node: node, AuthorityPEM: keys.AuthorityPEM, Tokens: a.tokens, Log: o.Log,
		}))
	})
	return group.Wait()
}

type readyLine struct {
	Ready  bool   `json:"ready"`
	Listen string `json:"listen"`
}

// ended drops the errors that the end of the context brings about.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func openStore(o Options) (*store.Store, error) {
	objects, problems, err := store.Open(store.Options{Dir: filepath.Join(o.State, "store"), Log: o.Log})
	if err != nil {
		return nil, err
	}
	for _, p := range problems {
		o.Log.Warn("state was damaged", "problem", p.String())
		if p.Moved == "" {
			continue // what a power cut leaves: nobody was told that the write is safe
		}
		if err := os.WriteFile(filepath.Join(o.State, DamageName), []byte(p.String()+"\n"), 0o600); err != nil {
			o.Log.Warn("who started the server is not told", "error", err)
		}
	}
	return objects, nil
}

// DamageName is the file of the state directory that says what was lost of it. Who
// started the server shows it, and removes it before the next start.
const DamageName = "damage"

// serverNames are the names under which clients find the server: on this machine,
// and in pods.
func serverNames(o Options, cidr *net.IPNet) []string {
	names := []string{
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		"127.0.0.1", controllers.APIAddress(cidr).String(),
	}
	if host, _, err := net.SplitHostPort(o.Listen); err == nil && net.ParseIP(host) != nil && host != "127.0.0.1" {
		names = append(names, host)
	}
	if o.NodeAddress != "" {
		names = append(names, o.NodeAddress)
	}
	return names
}

// checkListen returns an error when address is not on loopback: the port is for this
// machine's user.
func checkListen(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("listen address %q: want HOST:PORT: %w", address, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return errors.New("listen address " + address + ": must be on loopback, such as 127.0.0.1:6443")
	}
	return nil
}

// slowestStart bounds how long one step of the start may take.
const slowestStart = 30 * time.Second
