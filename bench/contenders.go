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
	argv          []string
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

// start builds the floor, writes the configurations and starts all contenders and the
// backend behind them. stop ends what was started, also after an error.
func start(ctx context.Context, dir string) (contenders []contender, stop func(), err error) {
	r := &running{dir: dir}
	if err := prepare(ctx, dir); err != nil {
		return nil, r.stop, err
	}
	if _, err := r.launch(loadCore, "nginx", "-c", filepath.Join(dir, "backend.conf"), "-p", dir); err != nil {
		return nil, r.stop, err
	}
	contenders = all(dir)
	for i, c := range contenders {
		if contenders[i].pid, err = r.launch(proxyCore, c.argv...); err != nil {
			return nil, r.stop, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for _, c := range contenders {
		if err := awaitPort(ctx, c); err != nil {
			return nil, r.stop, err
		}
	}
	return contenders, r.stop, nil
}

func prepare(ctx context.Context, dir string) error {
	if out, err := exec.CommandContext(ctx, "bench/install.sh").CombinedOutput(); err != nil {
		return fmt.Errorf("bench/install.sh: %w: %s", err, out)
	}
	floor := filepath.Join(dir, "floor")
	if out, err := exec.CommandContext(ctx, "gcc", "-O2", "-o", floor, "bench/floor/floor.c").CombinedOutput(); err != nil { //nolint:gosec // a path of our own
		return fmt.Errorf("gcc: %w: %s", err, out)
	}
	return writeConfigs(dir)
}

// all are the contenders, in the order in which they run.
func all(dir string) []contender {
	in := func(name string) string { return filepath.Join(dir, name) }
	envoy, ours := envoyPath(), "bin/lateen-proxy"
	return []contender{
		{name: "floor", version: "epoll relay in C", port: floorPort,
			argv: []string{in("floor"), strconv.Itoa(floorPort), strconv.Itoa(backendPort)}},
		{name: "envoy", version: version(envoy, "--version"), port: envoyPort,
			argv: []string{envoy, "-c", in("envoy.json"), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"}},
		{name: "nginx", version: version("nginx", "-v"), port: nginxPort,
			argv: []string{"nginx", "-c", in("nginx.conf"), "-p", dir}},
		{name: "haproxy", version: version("haproxy", "-v"), port: haproxyPort,
			argv: []string{"haproxy", "-db", "-f", in("haproxy.cfg")}},
		{name: "lateen", version: version(ours, "--version"), port: oursPort,
			argv: []string{ours, "-c", in("lateen.json"), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"}},
	}
}

// running is what was started.
type running struct {
	dir      string
	commands []*exec.Cmd
}

func (r *running) launch(core string, argv ...string) (pid int, err error) {
	cmd := exec.Command("taskset", append([]string{"-c", core}, argv...)...) //nolint:gosec // the peers named above
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(r.dir, filepath.Base(argv[0])+"-"+strconv.Itoa(len(r.commands))+".out"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	r.commands = append(r.commands, cmd)
	return cmd.Process.Pid, nil
}

func (r *running) stop() {
	for _, cmd := range r.commands {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
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
