package status

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// A probe is one of the application, as the pod's manifest had it.
type probe struct {
	HTTPGet *struct {
		Path, Host, Scheme string
		Port               port
		HTTPHeaders        []struct{ Name, Value string }
	}
	TCPSocket *struct {
		Host string
		Port port
	}
	GRPC *struct {
		Port    port
		Service *string
	}
	TimeoutSeconds int

	address string // of the pod
	dialer  net.Dialer
	client  *http.Client
}

// port is a number; the injector has resolved names.
type port uint16

func (p *port) UnmarshalJSON(text []byte) error {
	n, err := strconv.ParseUint(strings.Trim(string(text), `"`), 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("port %s is not a number from 1 to 65535", text)
	}
	*p = port(n)
	return nil
}

const (
	maxProbes      = 1000
	defaultTimeout = 10 * time.Second // where the manifest had none
	maxRedirects   = 10
)

// parseProbes reads the probes by path.
func parseProbes(text, address string) (map[string]*probe, error) {
	if text == "" {
		return nil, nil
	}
	var all map[string]*probe
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, err
	}
	if len(all) > maxProbes {
		return nil, fmt.Errorf("%d probes are more than %d", len(all), maxProbes)
	}
	path := regexp.MustCompile(`^/app-(health/[^/]+/(livez|readyz|startupz)|lifecycle/[^/]+/(prestopz|poststartz))$`)
	for name, p := range all {
		if !path.MatchString(name) {
			return nil, fmt.Errorf("%q is not /app-health/CONTAINER/{livez,readyz,startupz}", name)
		}
		if p.kinds() != 1 {
			return nil, fmt.Errorf("%s: exactly one of httpGet, tcpSocket, grpc is wanted", name)
		}
		p.prepare(address)
	}
	return all, nil
}

// kinds counts the ways of asking that a probe has.
func (p *probe) kinds() int {
	n := 0
	for _, there := range []bool{p != nil && p.HTTPGet != nil, p != nil && p.TCPSocket != nil, p != nil && p.GRPC != nil} {
		if there {
			n++
		}
	}
	return n
}

func (p *probe) prepare(address string) {
	p.address = cmp.Or(address, "127.0.0.1")
	if ip, err := netip.ParseAddr(p.address); err == nil && ip.Is4() {
		p.dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 6)}
	} else if err == nil {
		p.dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP("::6")}
	}
	p.client = &http.Client{
		Transport: &http.Transport{
			DialContext: p.dialer.DialContext, DisableKeepAlives: true, DisableCompression: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // as the kubelet, which knows no names of pods
		},
		CheckRedirect: func(next *http.Request, past []*http.Request) error {
			if next.URL.Hostname() != past[0].URL.Hostname() || len(past) >= maxRedirects {
				return http.ErrUseLastResponse // elsewhere: that the application answered is enough
			}
			return nil
		},
	}
}

func (p *probe) timeout() time.Duration {
	if p.TimeoutSeconds > 0 {
		return time.Duration(p.TimeoutSeconds) * time.Second
	}
	return defaultTimeout
}

// probe asks the application what the kubelet wants to know.
func (s *Server) probe(w http.ResponseWriter, r *http.Request) {
	p := s.probes[r.URL.Path]
	if p == nil {
		http.Error(w, "no probe is known for "+r.URL.Path, http.StatusNotFound)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), p.timeout())
	defer cancel()
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(p.timeout() + askTimeout)) // may be later than that of other pages
	status, err := p.ask(ctx, r)
	if err != nil {
		s.log.Debug("probe", "path", r.URL.Path, "error", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(status)
}

func (p *probe) ask(ctx context.Context, r *http.Request) (status int, err error) {
	switch {
	case p.HTTPGet != nil:
		return p.askHTTP(ctx, r)
	case p.GRPC != nil:
		return http.StatusOK, p.askGRPC(ctx)
	}
	c, err := p.dialer.DialContext(ctx, "tcp", p.at(p.TCPSocket.Port))
	if err != nil {
		return 0, err
	}
	return http.StatusOK, c.Close()
}

func (p *probe) at(n port) string { return net.JoinHostPort(p.address, strconv.Itoa(int(n))) }

// askHTTP makes the request of the manifest, with what the kubelet said of itself.
func (p *probe) askHTTP(ctx context.Context, from *http.Request) (status int, err error) {
	g := p.HTTPGet
	at, err := url.Parse(g.Path)
	if err != nil {
		at = &url.URL{Path: g.Path} // as it is: the application may understand it
	}
	at.Scheme, at.Host = strings.ToLower(cmp.Or(g.Scheme, "http")), p.at(g.Port)
	if !strings.HasPrefix(at.Path, "/") {
		at.Path = "/" + at.Path
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return 0, err
	}
	r.Host = g.Host
	maps.Copy(r.Header, from.Header)
	r.Header.Del("Connection")
	for _, h := range g.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			r.Host = h.Value
			continue
		}
		r.Header.Set(h.Name, h.Value)
	}
	answer, err := p.client.Do(r)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer))
	return answer.StatusCode, answer.Body.Close()
}

// askGRPC asks the standard health service.
func (p *probe) askGRPC(ctx context.Context) error {
	conn, err := grpc.NewClient("passthrough:///"+p.at(p.GRPC.Port), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(), grpc.WithContextDialer(func(ctx context.Context, at string) (net.Conn, error) {
			return p.dialer.DialContext(ctx, "tcp", at)
		}))
	if err != nil {
		return err
	}
	defer conn.Close()
	service := ""
	if p.GRPC.Service != nil {
		service = *p.GRPC.Service
	}
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	if err != nil {
		return err
	}
	if answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return errors.New("the service is " + answer.GetStatus().String())
	}
	return nil
}
