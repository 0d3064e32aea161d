package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/lateen-mesh/lateen/bench/process"
)

// A server is the control plane under measurement, a process of its own.
type server struct {
	address string
	pages   string // address of its HTTP pages
	pid     int
	cmd     *exec.Cmd // nil: it ran before
}

// start starts istiod and waits until it serves, or takes the server of the flags.
func start(ctx context.Context, s *settings, dir string, f *figures) (*server, error) {
	if s.address != "" {
		return &server{address: s.address, pages: s.pages, pid: s.pid}, nil
	}
	grpc, err := freePort()
	if err != nil {
		return nil, err
	}
	pages, err := freePort()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	srv := &server{address: grpc, pages: pages}
	srv.cmd = exec.CommandContext(ctx, "bin/istiod", "discovery", "--configDir", dir, "--grpcAddr", grpc, "--httpAddr", pages, "--monitoringAddr", "", "--secureGRPCAddr", "") //nolint:gosec // our own program
	log, err := os.Create(filepath.Join(filepath.Dir(dir), "istiod.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	srv.cmd.Stdout, srv.cmd.Stderr = log, log
	if err := srv.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: `make build` builds it", err)
	}
	srv.pid = srv.cmd.Process.Pid
	if err := ready(ctx, "http://"+pages+"/ready"); err != nil {
		srv.stop()
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("istiod is not ready: %w\n%s", err, text)
	}
	f.add("start until ready, ms", ms(time.Since(began)))
	f.add("start until ready: CPU, s", srv.cpu())
	if err := pause(ctx, 5*time.Second); err != nil { // what the start has left is given back after a while
		return nil, err
	}
	f.add("RSS without proxies, MiB", srv.rss())
	return srv, nil
}

func ready(ctx context.Context, url string) error {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(limited, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if err := pause(limited, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (s *server) stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

// cpu is the user and system time that the process has used, in seconds.
func (s *server) cpu() float64 {
	ns, err := process.CPUTime(s.pid)
	if err != nil {
		return 0
	}
	return float64(ns) / 1e9
}

// rss is the resident memory in MiB.
func (s *server) rss() float64 { return process.Resident(s.pid) }
