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

	"github.com/lateen-mesh/lateen/samples/testca"
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
	base, pid     int // base is the first of its ports
}

// A listener is one of a contender's; the relay, nginx and HAProxy have only mesh.
type listener int

const (
	mesh   listener = iota // what a mesh does to a request
	bare                   // routes it and no more
	tlsIn                  // bare, TLS from the client
	tlsOut                 // bare, mutual TLS to the backend
	mtlsIn                 // bare, mutual TLS from the client
	http2                  // mesh, HTTP/2 on both sides
	grpc                   // the same, to a backend of gRPC
	tcp                    // bytes
	adminPage
	listeners
)

func (c contender) port(l listener) int { return c.base + int(l) }

// ports of the benchmark, on loopback.
const (
	backendPort = 18000 + iota // HTTP/1.1, and 64 KiB as a file
	backendTLS                 // the same with mutual TLS
	backendHTTP2
	backendGRPC
	sinkPort
	floorBase = 18010 + (iota-5)*10
	nginxBase
	haproxyBase
	envoyBase
	oursBase
	freshBase
)

// serverName is the name in the certificate of everybody here.
const serverName = "bench.test"

// A bench is what is up during a run.
type bench struct {
	running
	contenders []contender
	envoyPeak  float64 // requests per second of http1-mesh
}

// versionNumber finds the version in what a peer prints of itself, which may begin
// with a path of this machine.
var versionNumber = regexp.MustCompile(`\d+\.\d+\.\d+|v?\d\S*-g[0-9a-f]+|dev`)

// start builds the floor, writes the configurations and starts all contenders and the
// backends behind them. stop ends what was started, also after an error.
func start(ctx context.Context, dir string) (*bench, error) {
	b := &bench{running: running{dir: dir}}
	if err := prepare(ctx, dir); err != nil {
		return b, err
	}
	if _, err := b.launch(loadCore, "nginx", "-c", filepath.Join(dir, "backend.conf"), "-p", dir); err != nil {
		return b, err
	}
	self, err := os.Executable()
	if err != nil {
		return b, err
	}
	if _, err := b.launch(loadCore, self, "-generate", "grpc", dir, strconv.Itoa(backendGRPC)); err != nil {
		return b, err
	}
	b.contenders = all(dir)
	for i, c := range b.contenders {
		if b.contenders[i].pid, err = b.launch(proxyCore, c.argv...); err != nil {
			return b, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for _, c := range b.contenders {
		if err := awaitPort(ctx, c); err != nil {
			return b, err
		}
	}
	return b, nil
}

// config is the name of a contender's bootstrap of a kind: "", "fresh" or "loaded".
func (r *running) config(name, kind string) string {
	return filepath.Join(r.dir, strings.Trim(name+"-"+kind, "-")+".json")
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
		{name: "floor", version: "epoll relay in C", base: floorBase,
			argv: []string{in("floor"), strconv.Itoa(floorBase), strconv.Itoa(backendPort)}},
		{name: "envoy", version: version(envoy, "--version"), base: envoyBase,
			argv: []string{envoy, "-c", in("envoy.json"), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"}},
		{name: "nginx", version: version("nginx", "-v"), base: nginxBase,
			argv: []string{"nginx", "-c", in("nginx.conf"), "-p", dir}},
		{name: "haproxy", version: version("haproxy", "-v"), base: haproxyBase,
			argv: []string{"haproxy", "-db", "-f", in("haproxy.cfg")}},
		{name: "lateen", version: version(ours, "--version"), base: oursBase,
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
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")                           // as if the machine had one processor
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
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.port(mesh)))
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return fmt.Errorf("%s does not listen on port %d", c.name, c.port(mesh))
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
	ca, err := testca.New()
	if err != nil {
		return err
	}
	cert, key, err := ca.Issue(serverName)
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"ca.pem": ca.PEM(), "cert.pem": cert, "key.pem": key,
		"backend.conf": []byte(backendConf(dir)), "nginx.conf": []byte(nginxConf(dir)), "haproxy.cfg": []byte(haproxyConf()),
		"openssl.cnf":  []byte(opensslConf),
		"message":      append([]byte{0, 0, 0, 0, 100}, make([]byte, 100)...),
		"www/svc2/64k": make([]byte, 64<<10),
	}
	for name, bases := range map[string]int{"envoy": envoyBase, "lateen": oursBase} {
		for kind, c := range map[string]config{
			"": {base: bases, services: 1}, "-fresh": {base: freshBase, services: 1}, "-loaded": {base: freshBase, services: 1000},
		} {
			c.dir, c.log = dir, filepath.Join(dir, name+kind+"-access.log")
			text, err := json.MarshalIndent(c.bootstrap(), "", " ")
			if err != nil {
				return err
			}
			files[name+kind+".json"] = text
		}
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
	}
	return nil
}
