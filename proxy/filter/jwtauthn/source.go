package jwtauthn

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"

	"github.com/lateen-mesh/lateen/jwt"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// A source has the keys of a provider. Those that were good last stay in force when others
// cannot be had.
type source struct {
	held   atomic.Pointer[keyring]
	file   *corev3.DataSource // that is watched; nil: none
	seen   os.FileInfo        // of the file as it was read
	remote *remote            // nil: the keys are here
	log    *slog.Logger
}

// A keyring is the keys in force.
type keyring struct {
	keys    *jwt.Keys
	expires time.Time // zero: never
}

func newSource(c *jwtv3.JwtProvider, st *counters, d Deps) (*source, error) {
	s := &source{log: d.Log}
	switch by := c.GetJwksSourceSpecifier().(type) {
	case *jwtv3.JwtProvider_RemoteJwks:
		var err error
		if s.remote, err = newRemote(by.RemoteJwks, s, st, d); err != nil {
			return nil, fmt.Errorf("remote_jwks.%w", err)
		}
		return s, nil
	case *jwtv3.JwtProvider_LocalJwks:
		return s, s.readLocal(by.LocalJwks)
	}
	return nil, errors.New("jwks_source_specifier: one must be set")
}

// readLocal takes keys of the configuration. Without any, tokens of this provider fail.
func (s *source) readLocal(c *corev3.DataSource) error {
	if err := xds.Only(c, "filename", "inline_bytes", "inline_string", "environment_variable", "watched_directory"); err != nil {
		return fmt.Errorf("local_jwks.%w", err)
	}
	if c.GetFilename() != "" {
		s.file = c
		s.seen, _ = os.Stat(c.GetFilename())
	}
	text, err := transport.ReadSource(c)
	if err == nil && len(text) > 0 {
		err = s.take(text)
	}
	if err != nil {
		return fmt.Errorf("local_jwks: %w", err)
	}
	return nil
}

// take puts the keys of a document in force. Its bytes do not show in the error.
func (s *source) take(document []byte) error {
	keys, err := jwt.ParseKeys(document)
	if err != nil {
		return err
	}
	s.held.Store(&keyring{keys: keys})
	return nil
}

// current are the keys in force, nil for none.
func (s *source) current() *jwt.Keys {
	r := s.held.Load()
	if r == nil || !r.expires.IsZero() && !time.Now().Before(r.expires) {
		return nil
	}
	return r.keys
}

// get waits for keys that have yet to be fetched, or until the client leaves. No keys and OK:
// the request is only explained, and nothing is fetched for it.
func (s *source) get(of *http.Stream) (*jwt.Keys, jwt.Status) {
	keys := s.current()
	switch {
	case keys != nil:
		return keys, jwt.OK
	case s.remote == nil:
		return nil, jwt.NoValidKeys
	case of.Tell != nil:
		of.Tell("keys are fetched from " + s.remote.uri + " to verify the signature of a token")
		return nil, jwt.OK
	}
	return s.remote.fetched(of.Done())
}

// lookEvery is how often a file is looked at.
const lookEvery = time.Second

// run begins to watch the file, or to fetch keys ahead of requests.
func (s *source) run(stop <-chan struct{}) (warm <-chan struct{}) {
	switch {
	case s.remote != nil:
		return s.remote.run(stop)
	case s.file != nil:
		go s.watch(stop)
	}
	return nil
}

func (s *source) watch(stop <-chan struct{}) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.look()
		case <-stop:
			return
		}
	}
}

// look reads the file if it is another one, or was written.
func (s *source) look() {
	now, err := os.Stat(s.file.GetFilename())
	if err != nil || s.seen != nil && os.SameFile(s.seen, now) && s.seen.ModTime().Equal(now.ModTime()) && s.seen.Size() == now.Size() {
		return
	}
	text, err := transport.ReadSource(s.file)
	if err != nil {
		return // it may be there the next time
	}
	s.seen = now
	if err := s.take(text); err != nil {
		s.log.Warn("the keys of a JWT provider stay as they were: those of its file are not good", "file", s.file.GetFilename(), "error", err)
	}
}
