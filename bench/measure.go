package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/lateen-mesh/lateen/bench/process"
)

// headers make the request like a browser's behind a mesh; without any, parsers look better than they are.
var headers = []string{
	"Host: svc3.default.svc.cluster.local",
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0 Safari/537.36",
	"Accept: application/json, text/plain, */*",
	"Accept-Language: en-GB,en;q=0.9",
	"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	"Cookie: session=7a6f1c0e5d9b4c2f8e1a3b5d7f901234; theme=dark",
	"Authorization: Bearer abcdefghijklmnopqrstuvwxyz0123456789",
	"Cache-Control: no-cache",
}

// connections is how many clients ask at once over HTTP/1.1.
const connections = 16

var (
	requestsLine = regexp.MustCompile(`(\d+) requests in ([\d.]+)s`)
	p99Line      = regexp.MustCompile(`(?m)^\s+99%\s+(\S+)`)
	failedLine   = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)`)
	h2Requests   = regexp.MustCompile(`requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored`)
	h2Finished   = regexp.MustCompile(`finished in ([\d.]+)(ms|s), ([\d.]+) req/s`)
)

// wrk asks one of a contender's listeners over HTTP/1.1 for a file of the backend, "" for
// the short answer.
func wrk(l listener, file string) func(context.Context, *bench, contender, time.Duration) (sample, error) {
	return func(ctx context.Context, b *bench, c contender, length time.Duration) (sample, error) {
		scheme := "http"
		if l == tlsIn {
			scheme = "https"
		}
		path := "items?id=42"
		if file != "" {
			path = file
		}
		argv := []string{"wrk", "-t1", fmt.Sprintf("-c%d", connections), fmt.Sprintf("-d%ds", max(int(length.Seconds()), 1)), "--latency"}
		for _, h := range headers {
			argv = append(argv, "-H", h)
		}
		argv = append(argv, fmt.Sprintf("%s://127.0.0.1:%d/svc2/%s", scheme, c.port(l), path))
		out, cpu, err := b.load(ctx, c, argv...)
		if err != nil {
			return sample{}, err
		}
		if m := failedLine.FindSubmatch(out); m != nil {
			return sample{}, fmt.Errorf("failed requests: %s", m[0])
		}
		m := requestsLine.FindSubmatch(out)
		if m == nil {
			return sample{}, fmt.Errorf("wrk printed no count:\n%s", out)
		}
		n, _ := strconv.ParseFloat(string(m[1]), 64)
		seconds, _ := strconv.ParseFloat(string(m[2]), 64)
		s := sample{rate: n / seconds}
		if m := p99Line.FindSubmatch(out); m != nil {
			s.p99 = "p99 " + string(m[1])
		}
		s.value, err = perRequest(0, cpu, n)
		return s, err
	}
}

// h2load asks over HTTP/2 with prior knowledge, by so many connections and streams on each.
func h2load(l listener, conns, streams int) func(context.Context, *bench, contender, time.Duration) (sample, error) {
	return func(ctx context.Context, b *bench, c contender, length time.Duration) (sample, error) {
		argv := []string{"h2load", "-t1", fmt.Sprintf("-c%d", conns), fmt.Sprintf("-m%d", streams), "-D", strconv.Itoa(max(int(length.Seconds()), 1))}
		for _, h := range headers[1:] {
			argv = append(argv, "-H", h)
		}
		path := "svc2/items?id=42"
		if l == grpc {
			argv = append(argv, "-H", "content-type: application/grpc", "-H", "te: trailers", "-d", filepath.Join(b.dir, "message"))
			path = "svc2/Echo"
		}
		argv = append(argv, "-H", ":authority: svc3.default.svc.cluster.local", fmt.Sprintf("http://127.0.0.1:%d/%s", c.port(l), path))
		out, cpu, err := b.load(ctx, c, argv...)
		if err != nil {
			return sample{}, err
		}
		m := h2Requests.FindSubmatch(out)
		if m == nil {
			return sample{}, fmt.Errorf("h2load printed no count:\n%s", out)
		}
		if string(m[2]) != "0" || string(m[3]) != "0" {
			return sample{}, fmt.Errorf("failed requests: %s", m[0])
		}
		n, _ := strconv.ParseFloat(string(m[1]), 64)
		var s sample
		if m := h2Finished.FindSubmatch(out); m != nil {
			s.rate, _ = strconv.ParseFloat(string(m[3]), 64)
		}
		s.value, err = perRequest(0, cpu, n)
		return s, err
	}
}

// generated runs one of our own generators against a listener; it prints how much it did.
func generated(name string, l listener) func(context.Context, *bench, contender, time.Duration) (sample, error) {
	return func(ctx context.Context, b *bench, c contender, length time.Duration) (sample, error) {
		var did work
		cpu, err := b.generate(ctx, c, &did, name, strconv.Itoa(c.port(l)), length.String())
		if err != nil {
			return sample{}, err
		}
		v, err := perRequest(0, cpu, did.Units)
		if name == "bulk" {
			v /= 1e3 // ms for each GB
		}
		return sample{value: v, rate: did.Units / length.Seconds()}, err
	}
}

// paced asks at half of the rate at which Envoy is at its end, and takes the time below
// which 99 of 100 answers came.
func paced(ctx context.Context, b *bench, c contender, length time.Duration) (sample, error) {
	if b.envoyPeak == 0 {
		for _, peer := range b.contenders {
			if peer.name == "envoy" {
				s, err := wrk(mesh, "")(ctx, b, peer, length)
				if err != nil {
					return s, err
				}
				b.envoyPeak = s.rate
			}
		}
	}
	var did work
	_, err := b.generate(ctx, c, &did, "paced", strconv.Itoa(c.port(mesh)), length.String(), strconv.Itoa(int(b.envoyPeak/2)))
	return sample{value: did.P99, rate: did.Units / length.Seconds()}, err
}

// generate runs a generator on the processor of the load and returns the contender's CPU time.
func (b *bench) generate(ctx context.Context, c contender, did *work, args ...string) (int64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	out, cpu, err := b.load(ctx, c, append([]string{self, "-generate", args[0], b.dir}, args[1:]...)...)
	if err != nil {
		return 0, err
	}
	return cpu, json.Unmarshal(out, did)
}

// load runs a command on the processor of the load and returns what it printed and the
// CPU time that the contender took meanwhile, in ns.
func (b *bench) load(ctx context.Context, c contender, argv ...string) ([]byte, int64, error) {
	cmd := exec.CommandContext(ctx, "taskset", append([]string{"-c", loadCore}, argv...)...) //nolint:gosec // load against loopback
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "OPENSSL_CONF="+filepath.Join(b.dir, "openssl.cnf"))
	before, err := process.CPUTime(c.pid)
	if err != nil {
		return nil, 0, err
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w: %s", argv[0], err, out)
	}
	after, err := process.CPUTime(c.pid)
	return out, after - before, err
}
