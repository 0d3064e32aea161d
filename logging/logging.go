// Package logging writes the program's log: slog records, one line each, in the
// line format of Istio's components or as JSON.
//
// A Log holds the sink and one level per scope. A scope is the part of the
// program that speaks ("ads", "config"); its logger comes from Log.Scope and is
// handed to that part. Levels are given as Istio's --log_output_level takes them
// ("default:info,ads:debug") and may change at run time with SetLevels; a scope
// that is not named follows "default".
//
// The text form is tab separated, UTC, the scope left out for "default":
//
//	2026-11-21T12:34:58.076000Z	info	ads	push	proxy=gw.istio-system type=CDS
//
// The package does not rotate files and does not redact: a type that holds a
// secret implements slog.LogValuer.
package logging

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
)

// DefaultScope is the scope whose level counts for every scope without its own.
const DefaultScope = "default"

// The levels beyond slog's own.
const (
	LevelFatal = slog.LevelError + 4
	LevelNone  = slog.Level(127) // nothing is logged
)

// Options say where and how a Log writes.
type Options struct {
	Output io.Writer // required; one Write per line
	Levels string    // "default:info,ads:debug"; "" is "default:info"
	JSON   bool
}

// A Log is one sink with the levels of its scopes. Its methods may be called
// from any goroutine.
type Log struct {
	sink *sink

	mu     sync.Mutex
	base   slog.Level
	scopes map[string]*scope
}

type scope struct {
	level slog.LevelVar
	own   bool // named in the levels, does not follow the default
	used  bool // has a logger
}

// New returns a log; the error is that of Options.Levels.
func New(o Options) (*Log, error) {
	l := &Log{
		sink:   &sink{out: o.Output, json: o.JSON},
		base:   slog.LevelInfo,
		scopes: map[string]*scope{},
	}
	if err := l.SetLevels(o.Levels); err != nil {
		return nil, err
	}
	return l, nil
}

// Discard returns a log that writes nothing.
func Discard() *Log {
	return &Log{sink: &sink{out: io.Discard}, base: LevelNone, scopes: map[string]*scope{}}
}

// Scope returns the logger of a scope. Loggers of one scope share their level.
func (l *Log) Scope(name string) *slog.Logger {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.scope(name)
	s.used = true
	return slog.New(&lines{sink: l.sink, scope: name, level: &s.level})
}

// Unused lists the scopes that have a level of their own and no logger, sorted: once
// all loggers are made, those that were misspelt.
func (l *Log) Unused() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for _, name := range slices.Sorted(maps.Keys(l.scopes)) {
		if s := l.scopes[name]; s.own && !s.used {
			names = append(names, name)
		}
	}
	return names
}

// scope returns the named scope, made on first use. l.mu is held.
func (l *Log) scope(name string) *scope {
	s, ok := l.scopes[name]
	if !ok {
		s = &scope{}
		s.level.Set(l.base)
		l.scopes[name] = s
	}
	return s
}

// SetLevels changes the levels that the list names and leaves the others:
// "scope:level,…", or a bare level for the default scope. "all" is a synonym of
// "default" as far as scopes without a level of their own are concerned. On an
// error no level is changed.
func (l *Log) SetLevels(list string) error {
	levels, err := parseLevels(list)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if base, ok := levels[DefaultScope]; ok {
		l.base = base
		for _, s := range l.scopes {
			if !s.own {
				s.level.Set(base)
			}
		}
	}
	for name, level := range levels {
		s := l.scope(name)
		s.level.Set(level)
		s.own = name != DefaultScope
	}
	return nil
}

// Levels is the present setting in the form that SetLevels takes, default first.
func (l *Log) Levels() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := []string{DefaultScope + ":" + levelName(l.base)}
	for _, name := range slices.Sorted(maps.Keys(l.scopes)) {
		if s := l.scopes[name]; s.own {
			list = append(list, name+":"+levelName(s.level.Level()))
		}
	}
	return strings.Join(list, ",")
}

func parseLevels(list string) (map[string]slog.Level, error) {
	levels := map[string]slog.Level{}
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		name, word, found := strings.Cut(item, ":")
		if !found {
			name, word = DefaultScope, item
		}
		if name == "all" {
			name = DefaultScope
		}
		level, ok := levelNames[word]
		if !ok {
			return nil, fmt.Errorf("log level %q: must be one of none, fatal, error, warn, info, debug", item)
		}
		levels[name] = level
	}
	return levels, nil
}
