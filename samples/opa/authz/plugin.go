// Package authz is the plugin of OPA that proxies ask whether a request may pass:
// envoy.service.auth.v3.Authorization by gRPC, configured as OPA-Envoy is
// (https://www.openpolicyagent.org/docs/envoy), so that its users' policies, files and flags work.
//
//	plugins:
//	  envoy_ext_authz_grpc:
//	    addr: :9191
//	    path: istio/authz/allow
//
// A CheckRequest becomes the document `input`, the rule at the path decides, and what it says,
// true, false or an object, becomes the CheckResponse. A decision that a policy does not make is
// an error, by which proxies refuse unless they are told to fail open.
package authz

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/plugins"
	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"
)

// Name is that of the plugin in OPA's configuration.
const Name = "envoy_ext_authz_grpc"

const (
	defaultAddr = ":9191"
	defaultPath = "envoy/authz/allow"

	// maxQuestion bounds a CheckRequest, and so the body of a request in question.
	maxQuestion = 4 << 20
	// maxAnswer bounds a CheckResponse: proxies take no more.
	maxAnswer = 4 << 20
	// maxAsked bounds how many questions of one connection are answered at the same time.
	maxAsked = 1024
)

// Config is the plugin's part of OPA's configuration.
type Config struct {
	Addr       string `json:"addr"`                    // HOST:PORT, or unix://PATH; ":9191" if empty
	Path       string `json:"path"`                    // of the decision: a/b is data.a.b; "envoy/authz/allow" if empty
	Query      string `json:"query"`                   // the same in the form data.a.b; not together with Path
	DryRun     bool   `json:"dry-run"`                 // decide and log, and let everything pass
	Reflection bool   `json:"enable-reflection"`       // gRPC reflection
	MaxRecv    int    `json:"grpc-max-recv-msg-size"`  // bytes of a question; 4 MiB if 0
	MaxSend    int    `json:"grpc-max-send-msg-size"`  // bytes of an answer; 4 MiB if 0
	SkipBody   bool   `json:"skip-request-body-parse"` // no parsed_body and truncated_body

	decision ast.Ref
}

// parseConfig reads a configuration, fills in defaults and checks it.
func parseConfig(text []byte) (*Config, error) {
	c := &Config{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("plugins.%s: %w", Name, err)
	}
	if c.Path != "" && c.Query != "" {
		return nil, fmt.Errorf("plugins.%s: path and query both name the decision: say path alone", Name)
	}
	if c.MaxRecv < 0 || c.MaxSend < 0 {
		return nil, fmt.Errorf("plugins.%s: grpc-max-recv-msg-size and grpc-max-send-msg-size are numbers of bytes", Name)
	}
	if c.Addr == "" {
		c.Addr = defaultAddr
	}
	if c.MaxRecv == 0 {
		c.MaxRecv = maxQuestion
	}
	if c.MaxSend == 0 {
		c.MaxSend = maxAnswer
	}
	return c, c.resolve()
}

// resolve finds the rule that decides.
func (c *Config) resolve() error {
	if c.Query != "" {
		ref, err := ast.ParseRef(c.Query)
		if err != nil || !ref.HasPrefix(ast.DefaultRootRef) || !ref.IsGround() || len(ref) < 2 {
			return fmt.Errorf("plugins.%s.query: %q names no decision: for example data.istio.authz.allow", Name, c.Query)
		}
		c.decision = ref
		for _, part := range ref[1:] {
			c.Path += "/" + strings.Trim(part.String(), `"`)
		}
		c.Path = c.Path[1:]
		return nil
	}
	if c.Path == "" {
		c.Path = defaultPath
	}
	c.Path = strings.Trim(c.Path, "/")
	c.decision = ast.DefaultRootRef.Copy()
	for part := range strings.SplitSeq(c.Path, "/") {
		if part == "" {
			return fmt.Errorf("plugins.%s.path: %q names no decision: for example istio/authz/allow", Name, c.Path)
		}
		c.decision = append(c.decision, ast.StringTerm(part))
	}
	return nil
}

// Factory makes the plugin for OPA.
type Factory struct{}

// Validate reads and checks a configuration.
func (Factory) Validate(_ *plugins.Manager, config []byte) (any, error) { return parseConfig(config) }

// New returns the plugin; config is what Validate has returned.
func (Factory) New(m *plugins.Manager, config any) plugins.Plugin {
	m.UpdatePluginStatus(Name, &plugins.Status{State: plugins.StateNotReady})
	return &plugin{manager: m, config: config.(*Config)}
}

// A plugin has one gRPC server at a time.
type plugin struct {
	manager *plugins.Manager

	mu     sync.Mutex
	config *Config
	server *grpc.Server
	ended  chan struct{}
	addr   net.Addr
}

// Start listens and serves until Stop.
func (p *plugin) Start(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	network, address := "tcp", p.config.Addr
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		network, address = "unix", path
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		return fmt.Errorf("plugins.%s.addr: %w", Name, err)
	}
	p.addr, p.ended = listener.Addr(), make(chan struct{})
	p.server = grpc.NewServer(grpc.MaxRecvMsgSize(p.config.MaxRecv), grpc.MaxSendMsgSize(p.config.MaxSend), grpc.MaxConcurrentStreams(maxAsked))
	authv3.RegisterAuthorizationServer(p.server, newDecider(p.manager, p.config))
	if p.config.Reflection {
		reflection.Register(p.server)
	}
	p.manager.Logger().WithFields(map[string]any{"addr": p.addr.String(), "path": p.config.Path, "dry-run": p.config.DryRun}).Info("Deciding for proxies.")
	go p.serve(p.server, listener, p.ended)
	p.manager.UpdatePluginStatus(Name, &plugins.Status{State: plugins.StateOK})
	return nil
}

func (p *plugin) serve(server *grpc.Server, listener net.Listener, ended chan struct{}) {
	defer close(ended)
	if err := server.Serve(listener); err != nil {
		p.manager.UpdatePluginStatus(Name, &plugins.Status{State: plugins.StateErr, Message: err.Error()})
	}
}

// Stop answers what was asked, as long as ctx lasts, and ends.
func (p *plugin) Stop(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil {
		return
	}
	cut := context.AfterFunc(ctx, p.server.Stop)
	p.server.GracefulStop()
	cut()
	<-p.ended
	p.server = nil
	p.manager.UpdatePluginStatus(Name, &plugins.Status{State: plugins.StateNotReady})
}

// Reconfigure goes on with another configuration. Where that cannot be listened for, the plugin's
// status says so.
func (p *plugin) Reconfigure(ctx context.Context, config any) {
	p.Stop(ctx)
	p.mu.Lock()
	p.config = config.(*Config)
	p.mu.Unlock()
	if err := p.Start(ctx); err != nil {
		p.manager.UpdatePluginStatus(Name, &plugins.Status{State: plugins.StateErr, Message: err.Error()})
	}
}
