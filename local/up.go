package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/agent/bootstrap"
	"github.com/lateen-mesh/lateen/local/outside"
)

// maxStdin bounds configuration from standard input.
const maxStdin = 64 << 20

// A Ready says that traffic can flow, and where.
type Ready struct {
	Took   time.Duration // since Up began
	Status Status
	Pages  []string // ways into the mesh, for people
}

// A supervisor is one running mesh.
type supervisor struct {
	o     Options
	state *state
	began time.Time
	stdin []byte
	out   *prefixes
	parts []*process
	dns   *outside.Resolver

	control *process        // nil where it is a pod
	gateway bootstrap.Input // of the gateway on this machine; the zero value where it is a pod
	proxy   *process        // likewise
	engine  *engine         // nil without pods
}

// Up runs a mesh until the context ends, which is no error. It fails when the mesh
// cannot start: a path, port or program that is not to be had, or a state directory
// that another mesh uses.
func Up(ctx context.Context, o Options) error {
	s := &supervisor{o: o, began: time.Now(), out: &prefixes{out: o.Stdout}}
	var err error
	if s.state, err = openState(o.State); err != nil {
		return err
	}
	defer s.state.close()
	defer func() {
		for _, p := range s.parts {
			p.log.close()
		}
	}()
	if err := s.prepare(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	spawn := func(run func(context.Context)) {
		running.Go(func() { run(ctx) })
	}
	if s.dns != nil {
		spawn(s.dns.Run)
	}
	start := s.startGateway
	if s.engine != nil {
		start = s.startEngine
	}
	if err := start(ctx, spawn); err != nil || ctx.Err() != nil {
		return err
	}
	s.save() // what was published by now is part of the status
	status, err := s.Status(ctx)
	if err == nil {
		if err := useless(status); err != nil {
			return err
		}
	}
	if err == nil && o.Ready != nil {
		o.Ready(Ready{Took: time.Since(s.began), Status: status, Pages: s.pages(ctx, status)})
	}
	<-ctx.Done()
	return nil
}

// prepare does all that can fail before anything runs.
func (s *supervisor) prepare() error {
	if err := s.readStdin(); err != nil {
		return err
	}
	if f := s.o.MeshConfig; f != "" {
		if _, err := os.Stat(f); err != nil {
			return &Error{fmt.Errorf("MeshConfig: %w", err), "name a file with --meshConfig, or leave the flag out for the defaults"}
		}
	}
	pods, err := s.wantsPods()
	if err != nil {
		return err
	}
	if pods {
		return s.prepareEngine()
	}
	return s.prepareProcesses()
}

// prepareProcesses makes control plane and gateway processes of this machine.
func (s *supervisor) prepareProcesses() error {
	istiod, err := s.o.binary("istiod")
	if err != nil {
		return err
	}
	if s.control, err = s.newProcess("istiod", s.controlArgs(istiod)); err != nil {
		return err
	}
	if s.engine == nil {
		s.control.input = s.stdin
	}
	return s.prepareGateway()
}

func (s *supervisor) readStdin() error {
	if !s.o.readsStdin() {
		return nil
	}
	if s.o.Stdin == nil {
		return errors.New("path -: no standard input")
	}
	text, err := io.ReadAll(io.LimitReader(s.o.Stdin, maxStdin+1))
	if err == nil && len(text) > maxStdin {
		err = fmt.Errorf("more than %d bytes", maxStdin)
	}
	if err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	s.stdin = text
	return nil
}

func (s *supervisor) controlArgs(istiod string) []string {
	args := []string{istiod, "discovery", "--grpcAddr", "unix:" + s.state.socket(xdsSocket), "--httpAddr", "unix:" + s.state.socket(controlSocket),
		"--monitoringAddr", "", "--secureGRPCAddr", "", "--httpsAddr", "", "--state", s.state.path("config"), "--meshConfig", s.o.MeshConfig}
	if s.engine != nil {
		args = append(args, "--kubeSocket", s.state.socket("api.sock"))
	} else {
		for _, p := range s.o.Paths {
			args = append(args, "--configDir", p)
		}
	}
	for _, v := range s.o.Set {
		args = append(args, "--set", v)
	}
	if s.o.LogLevels != "" {
		args = append(args, "--log_output_level", s.o.LogLevels)
	}
	return args
}

// newProcess prepares a part: a program that is kept running once it is started.
func (s *supervisor) newProcess(name string, argv []string) (*process, error) {
	path := filepath.Join(s.state.dir, "logs", name+".log")
	log, err := openLog(path)
	if err != nil {
		return nil, err
	}
	p := &process{name: name, argv: argv, out: prefixedWriter{s.out, fmt.Sprintf("%-9s| ", name)}, log: log, changed: s.save,
		part: Part{Name: name, State: "starting", Since: time.Now(), Log: path}}
	s.parts = append(s.parts, p)
	return p, nil
}

func (s *supervisor) save() {
	record := record{}
	for _, p := range s.parts {
		record.Parts = append(record.Parts, p.status())
	}
	if s.engine != nil {
		s.engine.record(&record)
	}
	s.state.save(record)
}

// startTime bounds the start of the mesh; a process that ends in it is an error
// rather than something to try again.
const startTime = 30 * time.Second

// await waits until a check passes.
func (s *supervisor) await(ctx context.Context, p *process, what string, check func() error) error {
	deadline := time.NewTimer(startTime)
	defer deadline.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		if part := p.status(); part.Exit != "" {
			return &Error{fmt.Errorf("%s ended: %s", what, lastWords(part)), "its log: " + part.Log}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-deadline.C:
			return &Error{fmt.Errorf("%s is not ready after %s: %w", what, startTime, err), "its log: " + p.status().Log}
		case <-poll.C:
		}
	}
}

// lastWords is what a process said last, or how it ended.
func lastWords(p Part) string {
	text, err := os.ReadFile(p.Log)
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		return p.Exit
	}
	all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.TrimPrefix(all[len(all)-1], []byte("error: ")))
}

// log is where the engine itself writes: up.log's lines are those of all parts.
func (s *supervisor) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(prefixedWriter{s.out, "up       | "}, nil))
}

// Status describes the mesh from inside.
func (s *supervisor) Status(ctx context.Context) (Status, error) { return ReadStatus(ctx, s.state.dir) }
