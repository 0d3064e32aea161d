// Package probe asks containers how they are: by HTTP, TCP, gRPC and by a program in
// the container, with the words of a kubelet. Lifecycle hooks go the same ways.
package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// maxBody bounds what is read of an answer.
const maxBody = 10 << 10

const userAgent = "kube-probe/1.36"

// A Target is a container that can be asked. Safe for concurrent use.
type Target struct {
	Address   string // of the pod
	Container *corev1.Container
	// Dial connects from the node's side.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Exec runs a program in the container and returns the first of its output and how it ended.
	Exec func(ctx context.Context, argv []string) (output []byte, code int, err error)
}

// Ask asks once; nil says that the container is well.
func (t Target) Ask(ctx context.Context, p corev1.ProbeHandler) error {
	switch {
	case p.Exec != nil:
		return t.run(ctx, p.Exec.Command)
	case p.HTTPGet != nil:
		code, err := t.get(ctx, p.HTTPGet)
		if err == nil && (code < 200 || code >= 400) {
			err = fmt.Errorf("HTTP probe failed with statuscode: %d", code)
		}
		return err
	case p.TCPSocket != nil:
		return t.connect(ctx, p.TCPSocket)
	case p.GRPC != nil:
		return t.health(ctx, p.GRPC)
	}
	return errors.New("the probe has no way to ask")
}

// Hook runs a lifecycle hook. Any answer to an HTTP request is a good one.
func (t Target) Hook(ctx context.Context, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		return t.run(ctx, h.Exec.Command)
	case h.HTTPGet != nil:
		_, err := t.get(ctx, h.HTTPGet)
		return err
	case h.TCPSocket != nil:
		return t.connect(ctx, h.TCPSocket)
	case h.Sleep != nil:
		timer := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (t Target) run(ctx context.Context, argv []string) error {
	output, code, err := t.Exec(ctx, argv)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("command timed out: %q", strings.Join(argv, " "))
	case err != nil:
		return err
	case code != 0 && len(output) > 0:
		return errors.New(strings.TrimRight(string(output), "\n"))
	case code != 0:
		return fmt.Errorf("command %q exited with %d", strings.Join(argv, " "), code)
	}
	return nil
}

// port is a number, or that of the container's port of a name.
func (t Target) port(p intstr.IntOrString) (string, error) {
	n := p.IntValue()
	if p.Type == intstr.String && n == 0 {
		for _, named := range t.Container.Ports {
			if named.Name == p.StrVal {
				n = int(named.ContainerPort)
			}
		}
	}
	if n < 1 || n > 65535 {
		return "", fmt.Errorf("container %s has no port %q", t.Container.Name, p.String())
	}
	return strconv.Itoa(n), nil
}

func (t Target) endpoint(host string, p intstr.IntOrString) (string, error) {
	port, err := t.port(p)
	if host == "" {
		host = t.Address
	}
	return net.JoinHostPort(host, port), err
}

func (t Target) connect(ctx context.Context, a *corev1.TCPSocketAction) error {
	address, err := t.endpoint(a.Host, a.Port)
	if err != nil {
		return err
	}
	conn, err := t.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// get makes one request and returns the status of its answer.
func (t Target) get(ctx context.Context, a *corev1.HTTPGetAction) (int, error) {
	r, err := t.request(ctx, a)
	if err != nil {
		return 0, err
	}
	client := &http.Client{
		Transport: &http.Transport{
			DialContext: t.Dial, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxBody,
			//nolint:gosec // a kubelet's probes trust any certificate: they ask whether the server is up
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		},
		CheckRedirect: func(to *http.Request, via []*http.Request) error {
			if to.URL.Hostname() != via[0].URL.Hostname() {
				return http.ErrUseLastResponse // a way to elsewhere is an answer
			}
			if len(via) >= 10 {
				return errors.New("stopped after 10 redirects")
			}
			return nil
		},
	}
	reply, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer reply.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(reply.Body, maxBody))
	return reply.StatusCode, err
}

func (t Target) request(ctx context.Context, a *corev1.HTTPGetAction) (*http.Request, error) {
	host, err := t.endpoint(a.Host, a.Port)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path}
	}
	u.Scheme, u.Host = "http", host
	if a.Scheme == corev1.URISchemeHTTPS {
		u.Scheme = "https"
	}
	if !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header = http.Header{"User-Agent": {userAgent}, "Accept": {"*/*"}}
	given := http.Header{}
	for _, h := range a.HTTPHeaders {
		given.Add(h.Name, h.Value)
	}
	for name, values := range given {
		r.Header[name] = values
		if name == "Host" {
			r.Host = values[0]
		}
	}
	return r, nil
}

func (t Target) health(ctx context.Context, a *corev1.GRPCAction) error {
	address := net.JoinHostPort(t.Address, strconv.Itoa(int(a.Port)))
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent(userAgent), grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return t.Dial(ctx, "tcp", address) }))
	if err != nil {
		return err
	}
	defer conn.Close()
	service := ""
	if a.Service != nil {
		service = *a.Service
	}
	reply, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return errors.New("this server does not implement the grpc health protocol (grpc.health.v1.Health)")
	case status.Code(err) == codes.DeadlineExceeded:
		return fmt.Errorf("timeout: health rpc did not complete in time: %w", err)
	case err != nil:
		return fmt.Errorf("health rpc failed: %w", err)
	case reply.GetStatus() != healthpb.HealthCheckResponse_SERVING:
		return fmt.Errorf("service unhealthy (responded with %q)", reply.GetStatus())
	}
	return nil
}
