// Package health looks after the application beside a proxy that no kubelet looks after: as
// the probe of its WorkloadGroup says, which comes as ProxyConfig.readinessProbe.
//
// The application is probed every period, from the initial delay on. It is healthy after so
// many successes in a row, unhealthy after so many failures; what it is is told when it has
// become that for the first time, and each time that it changes.
package health

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	networking "istio.io/api/networking/v1alpha3"
)

// Options say what is probed and who is told.
type Options struct {
	Probe *networking.ReadinessProbe
	// Address is the application's, where the probe names no host.
	Address string
	// Control sets up sockets: those of the agent pass by the proxy. nil: nothing to set up.
	Control func(network, address string, c syscall.RawConn) error
	// Tell takes what is wrong with the application, "" where it is healthy.
	Tell func(wrong string)
}

// What holds where a probe says nothing, as in Kubernetes but for the delay.
const (
	defaultPeriod    = 10 * time.Second
	defaultTimeout   = time.Second
	defaultSuccesses = 1
	defaultFailures  = 3
)

// Run probes until ctx ends. The error is that of a probe that cannot be carried out.
func Run(ctx context.Context, o Options) error {
	ask, err := o.asker()
	if err != nil {
		return fmt.Errorf("readinessProbe: %w", err)
	}
	p := o.Probe
	w := watcher{tell: o.Tell, successes: int(cmp.Or(p.SuccessThreshold, defaultSuccesses)), failures: int(cmp.Or(p.FailureThreshold, defaultFailures))}
	period := cmp.Or(time.Duration(p.PeriodSeconds)*time.Second, defaultPeriod)
	timeout := cmp.Or(time.Duration(p.TimeoutSeconds)*time.Second, defaultTimeout)
	due := time.NewTimer(time.Duration(p.InitialDelaySeconds) * time.Second)
	defer due.Stop()
	for {
		select {
		case <-due.C:
		case <-ctx.Done():
			return nil
		}
		asking, cancel := context.WithTimeout(ctx, timeout)
		err := ask(asking)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		w.take(err)
		due.Reset(period)
	}
}

// A watcher counts outcomes.
type watcher struct {
	tell                func(string)
	successes, failures int // that are wanted in a row
	row                 int // of what last was: positive are successes
	known, healthy      bool
}

func (w *watcher) take(err error) {
	switch {
	case err == nil && w.row > 0:
		w.row++
	case err == nil:
		w.row = 1
	case w.row < 0:
		w.row--
	default:
		w.row = -1
	}
	switch {
	case w.row >= w.successes && !(w.known && w.healthy):
		w.known, w.healthy = true, true
		w.tell("")
	case -w.row >= w.failures && (!w.known || w.healthy):
		w.known, w.healthy = true, false
		w.tell(err.Error())
	}
}

// asker is the way of asking that the probe names.
func (o Options) asker() (func(context.Context) error, error) {
	dialer := &net.Dialer{Control: o.Control}
	switch m := o.Probe.GetHealthCheckMethod().(type) {
	case *networking.ReadinessProbe_HttpGet:
		return o.overHTTP(dialer, m.HttpGet), nil
	case *networking.ReadinessProbe_TcpSocket:
		address := hostPort(cmp.Or(m.TcpSocket.Host, o.Address), m.TcpSocket.Port)
		return func(ctx context.Context) error {
			c, err := dialer.DialContext(ctx, "tcp", address)
			if err != nil {
				return err
			}
			return c.Close()
		}, nil
	case *networking.ReadinessProbe_Exec:
		if len(m.Exec.Command) == 0 {
			return nil, errors.New("exec.command: required")
		}
		return func(ctx context.Context) error { return command(ctx, m.Exec.Command) }, nil
	case *networking.ReadinessProbe_Grpc:
		return overGRPC(dialer, hostPort(o.Address, m.Grpc.Port), m.Grpc.Service), nil
	}
	return nil, errors.New("httpGet, tcpSocket, exec or grpc is required")
}

func hostPort(host string, port uint32) string {
	return net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
}

// maxBody bounds what is read of an answer before its connection is closed, in bytes.
const maxBody = 10 << 10

// overHTTP wants a status from 200 to 399. Redirects are an answer, too.
func (o Options) overHTTP(dialer *net.Dialer, get *networking.HTTPHealthCheckConfig) func(context.Context) error {
	path, query, _ := strings.Cut(get.Path, "?")
	at := url.URL{Scheme: strings.ToLower(cmp.Or(get.Scheme, "http")), Host: hostPort(cmp.Or(get.Host, o.Address), get.Port), Path: "/" + strings.TrimPrefix(path, "/"), RawQuery: query}
	client := &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, DisableKeepAlives: true, DisableCompression: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // as a kubelet, which knows no names of applications
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
		if err != nil {
			return err
		}
		request.Header.Set("User-Agent", "istio-probe/1.0")
		for _, h := range get.HttpHeaders {
			if strings.EqualFold(h.Name, "host") {
				request.Host = h.Value
				continue
			}
			request.Header.Add(h.Name, h.Value)
		}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		_, _ = io.CopyN(io.Discard, answer.Body, maxBody)
		if answer.StatusCode < 200 || answer.StatusCode >= 400 {
			return fmt.Errorf("%s answers %s", at.Redacted(), answer.Status)
		}
		return nil
	}
}

// maxOutput bounds what is told of a command's output, in bytes.
const maxOutput = 1 << 10

func command(ctx context.Context, argv []string) error {
	run := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // the WorkloadGroup says what
	run.WaitDelay = time.Second                           // for what it has left behind that holds its output
	output, err := run.CombinedOutput()
	if err != nil {
		text := strings.TrimSpace(strings.ToValidUTF8(string(output[:min(len(output), maxOutput)]), ""))
		return fmt.Errorf("%s: %w: %s", argv[0], err, text)
	}
	return nil
}

// overGRPC asks the health service of gRPC.
func overGRPC(dialer *net.Dialer, address, service string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
			grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", a) }))
		if err != nil {
			return err
		}
		defer conn.Close()
		answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil {
			return err
		}
		if s := answer.GetStatus(); s != grpc_health_v1.HealthCheckResponse_SERVING {
			return fmt.Errorf("%s says %s", address, s)
		}
		return nil
	}
}
