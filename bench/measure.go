package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A sample is one contender in one round.
type sample struct {
	cpu  float64 // µs of CPU per request
	rate float64 // requests per second
	p99  string
}

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

// connections is how many clients ask at once.
const connections = 16

var (
	requestsLine = regexp.MustCompile(`(\d+) requests in ([\d.]+)s`)
	p99Line      = regexp.MustCompile(`(?m)^\s+99%\s+(\S+)`)
	failedLine   = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)`)
)

func measure(ctx context.Context, c contender, length time.Duration) (sample, error) {
	argv := []string{"-c", loadCore, "wrk", "-t1", fmt.Sprintf("-c%d", connections), fmt.Sprintf("-d%ds", max(int(length.Seconds()), 1)), "--latency"}
	for _, h := range headers {
		argv = append(argv, "-H", h)
	}
	argv = append(argv, fmt.Sprintf("http://127.0.0.1:%d/svc2/items?id=42", c.port))
	before, err := cpuTime(c.pid)
	if err != nil {
		return sample{}, err
	}
	out, err := exec.CommandContext(ctx, "taskset", argv...).CombinedOutput() //nolint:gosec // wrk against loopback
	if err != nil {
		return sample{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	after, err := cpuTime(c.pid)
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
	if n == 0 {
		return sample{}, fmt.Errorf("no request was answered:\n%s", out)
	}
	s := sample{cpu: float64(after-before) / 1e3 / n, rate: n / seconds}
	if m := p99Line.FindSubmatch(out); m != nil {
		s.p99 = string(m[1])
	}
	return s, nil
}

// cpuTime sums what the threads of a process and of its children have run, in
// nanoseconds: schedstat is finer than the 10 ms ticks of stat.
func cpuTime(pid int) (int64, error) {
	var total int64
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("process %d is gone", pid)
	}
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has just ended
		}
		n, err := strconv.ParseInt(strings.Fields(string(data))[0], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", task, err)
		}
		total += n
	}
	return total, nil
}

// residentSize is VmRSS in MB.
func residentSize(pid int) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kb, _ := strconv.ParseFloat(f[1], 64)
			return kb / 1024
		}
	}
	return 0
}
