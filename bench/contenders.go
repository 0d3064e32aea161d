package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// proxyCore and loadCore are the two processors: the contender has one for itself.
const (
	proxyCore = "1"
	loadCore  = "0"
)

// A contender is one proxy that is up for the whole run; idle ones cost nothing measurable.
type contender struct {
	name, version string
	port, pid     int
}

// ports of the benchmark, on loopback.
const (
	backendPort = 18000 + iota
	floorPort
	envoyPort
	nginxPort
	haproxyPort
	oursPort
	envoyAdmin
	oursAdmin
)

// versionNumber finds the version in what a peer prints of itself, which may begin
// with a path of this machine.
var versionNumber = regexp.MustCompile(`\d+\.\d+\.\d+|v?\d\S*-g[0-9a-f]+|dev`)

// start builds the floor, writes the configurations and starts all contenders.
func start(ctx context.Context, dir string) ([]contender, func(), error) {
	if out, err := exec.CommandContext(ctx, "bench/install.sh").CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("bench/install.sh: %w: %s", err, out)
	}
	floor := filepath.Join(dir, "floor")
	if out, err := exec.CommandContext(ctx, "gcc", "-O2", "-o", floor, "bench/floor/floor.c").CombinedOutput(); err != nil { //nolint:gosec // a path of our own
		return nil, nil, fmt.Errorf("gcc: %w: %s", err, out)
	}
	if err := writeConfigs(dir); err != nil {
		return nil, nil, err
	}
	envoy := envoyPath()
	in := func(name string) string { return filepath.Join(dir, name) }
	var running []*exec.Cmd
	stop := func() {
		for _, cmd := range running {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	launch := func(core string, argv ...string) (int, error) {
		cmd := exec.Command("taskset", append([]string{"-c", core}, argv...)...) //nolint:gosec // the peers named here
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		log, err := os.Create(in(filepath.Base(argv[0]) + "-" + strconv.Itoa(len(running)) + ".out"))
		if err != nil {
			return 0, err
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		running = append(running, cmd)
		return cmd.Process.Pid, nil
	}
	if _, err := launch(loadCore, "nginx", "-c", in("backend.conf"), "-p", dir); err != nil {
		return nil, stop, err
	}
	contenders := []contender{
		{name: "floor", version: "epoll relay in C", port: floorPort},
		{name: "envoy", version: version(envoy, "--version"), port: envoyPort},
		{name: "nginx", version: version("nginx", "-v"), port: nginxPort},
		{name: "haproxy", version: version("haproxy", "-v"), port: haproxyPort},
		{name: "lateen", version: version("bin/lateen-proxy", "--version"), port: oursPort},
	}
	commands := [][]string{
		{floor, strconv.Itoa(floorPort), strconv.Itoa(backendPort)},
		{envoy, "-c", in("envoy.json"), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"},
		{"nginx", "-c", in("nginx.conf"), "-p", dir},
		{"haproxy", "-db", "-f", in("haproxy.cfg")},
		{"bin/lateen-proxy", "-c", in("lateen.json"), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"},
	}
	for i := range contenders {
		pid, err := launch(proxyCore, commands[i]...)
		if err != nil {
			return nil, stop, fmt.Errorf("%s: %w", contenders[i].name, err)
		}
		contenders[i].pid = pid
	}
	for _, c := range contenders {
		if err := awaitPort(ctx, c); err != nil {
			return nil, stop, err
		}
	}
	return contenders, stop, nil
}

func awaitPort(ctx context.Context, c contender) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 200 {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.port))
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return fmt.Errorf("%s does not listen on port %d", c.name, c.port)
}

func version(argv ...string) string {
	out, _ := exec.Command(argv[0], argv[1:]...).CombinedOutput() //nolint:gosec // the peers named above
	for line := range strings.SplitSeq(string(out), "\n") {
		if v := versionNumber.FindString(line[strings.LastIndex(line, "ersion")+1:]); v != "" {
			return v
		}
	}
	return "unknown"
}

func envoyPath() string {
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, _ := os.UserHomeDir()
		cache = filepath.Join(home, ".cache")
	}
	return filepath.Join(cache, "lateen", "envoy-1.40.0", "envoy")
}

func writeConfigs(dir string) error {
	envoy, err := json.MarshalIndent(meshBootstrap(envoyPort, envoyAdmin, filepath.Join(dir, "envoy-access.log")), "", " ")
	if err != nil {
		return err
	}
	ours, err := json.MarshalIndent(meshBootstrap(oursPort, oursAdmin, filepath.Join(dir, "lateen-access.log")), "", " ")
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"envoy.json": string(envoy), "lateen.json": string(ours),
		"backend.conf": backendConf(dir), "nginx.conf": nginxConf(dir), "haproxy.cfg": haproxyConf(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
