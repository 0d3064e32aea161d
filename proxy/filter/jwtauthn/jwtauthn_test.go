package jwtauthn

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/jwt"
	"github.com/lateen-mesh/lateen/proxy/callout"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

const (
	secret = "a key of tests"
	// keys has that key, with the ID k.
	keys  = `{\"keys\":[{\"kty\":\"oct\",\"kid\":\"k\",\"k\":\"YSBrZXkgb2YgdGVzdHM\"}]}`
	local = `"local_jwks": {"inline_string": "` + keys + `"}`
)

// token signs claims.
func token(claims string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	text := b64([]byte(`{"alg":"HS256"}`)) + "." + b64([]byte(claims))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return text + "." + b64(mac.Sum(nil))
}

func unpack[T any](t *testing.T, url, fields string, of func(*anypb.Any) (T, error)) (T, error) {
	t.Helper()
	a := &anypb.Any{}
	if err := protojson.Unmarshal([]byte(`{"@type": "`+url+`", `+fields+`}`), a); err != nil {
		t.Fatal(err)
	}
	return of(a)
}

func build(t *testing.T, fields string, store *stats.Store) (*filter, error) {
	t.Helper()
	return unpack(t, typeURL, fields, func(a *anypb.Any) (*filter, error) {
		f, err := Factory(Deps{Log: slog.New(slog.DiscardHandler)}).New(a, http.Env{Stats: store.Scope("http.x.")})
		out, _ := f.(*filter)
		return out, err
	})
}

// control takes what a filter asks of the connection manager.
type control struct{ cleared int }

func (*control) Inform(*http.Response) error { return nil }
func (c *control) ClearRoute()               { c.cleared++ }
func (*control) Tunnel()                     {}
func (*control) StopBody()                   {}
func (*control) Reroute() bool               { return false }

// ask sends a request, "METHOD PATH", and headers "name: value".
func ask(f *filter, request string, headers ...string) (s *http.Stream, c *control, denied string) {
	s, c = &http.Stream{}, &control{}
	s.Begin(c, 1, make(chan struct{}))
	method, path, _ := strings.Cut(request, " ")
	s.Request = http.Request{Method: []byte(method), Path: []byte(path), Scheme: []byte("http"), Authority: []byte("a.test"), Body: http.NoBody}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		s.Request.Headers.Add([]byte(name), []byte(value))
	}
	if f.OnRequest(s, 0) == http.Continue {
		return s, c, ""
	}
	r, _ := s.TakeReply()
	denied = fmt.Sprintf("%d %s %s", r.Status, r.Details, r.Body)
	for _, h := range r.Prepend {
		denied += " " + string(h.Value)
	}
	return s, c, denied
}

// TestDenied: SX-017.
func TestDenied(t *testing.T) {
	store := stats.NewStore()
	f, err := build(t, `"providers": {"p": {"issuer": "i", "audiences": ["a"], `+local+`}}, "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}]`, store)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, authorization, want string }{
		{"good", "Bearer " + token(`{"iss":"i","aud":"a"}`), ""},
		{"missing", "", `401 jwt_authn_access_denied{Jwt_is_missing} Jwt is missing Bearer realm="http://a.test/x?y"`},
		{"expired", "Bearer " + token(`{"iss":"i","aud":"a","exp":1}`), `401 jwt_authn_access_denied{Jwt_is_expired} Jwt is expired Bearer realm="http://a.test/x?y", error="invalid_token"`},
		{"audience", "Bearer " + token(`{"iss":"i","aud":"b"}`), `403 jwt_authn_access_denied{Audiences_in_Jwt_are_not_allowed} Audiences in Jwt are not allowed Bearer realm="http://a.test/x?y", error="invalid_token"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, got := ask(f, "GET /x?y", "authorization: "+c.authorization); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	if got := store.Scope("http.x.").Counter("jwt_authn.denied").Value(); got != 3 {
		t.Errorf("%d denied", got)
	}
}

// TestPassedOn: what a good token says goes on as headers and metadata, and the token does not:
// PO-011 PO-012 PO-013 PO-015.
func TestPassedOn(t *testing.T) {
	f, err := build(t, `"providers": {"p": {"issuer": "i", `+local+`, "forward_payload_header": "X-Payload", "pad_forward_payload_header": true,
		"payload_in_metadata": "payload", "header_in_metadata": "header", "normalize_payload_in_metadata": {"space_delimited_claims": ["scope"]},
		"claim_to_headers": [{"header_name": "X-Sub", "claim_name": "sub"}, {"header_name": "x-deep", "claim_name": "a.b"}, {"header_name": "x-list", "claim_path": [{"key": "l.l"}]}],
		"clear_route_cache": true}}, "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}]`, stats.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	const claims = `{"iss":"i","sub":"me","scope":"a b","a":{"b":1.5},"l.l":[1,"<"]}`
	s, c, denied := ask(f, "GET /x?a=b&access_token="+token(claims)+"&c", "x-sub: forged")
	if denied != "" {
		t.Fatal(denied)
	}
	var got []string
	for _, h := range s.Request.Headers.Fields {
		got = append(got, string(h.Name)+": "+string(h.Value))
	}
	want := []string{
		"x-payload: " + base64.URLEncoding.EncodeToString([]byte(claims)), "x-sub: me", "x-deep: 1.500000",
		"x-list: " + base64.StdEncoding.EncodeToString([]byte(`[1,"\u003c"]`)),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if path := string(s.Request.Path); path != "/x?a=b&c=" {
		t.Errorf("path %q", path)
	}
	meta := map[string]any{"header": map[string]any{"alg": "HS256"}, "payload": map[string]any{
		"iss": "i", "sub": "me", "scope": []any{"a", "b"}, "a": map[string]any{"b": 1.5}, "l.l": []any{1.0, "<"}}}
	if diff := cmp.Diff(meta, s.Info.Metadata[Name]); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	if c.cleared != 1 {
		t.Errorf("the route was cleared %d times", c.cleared)
	}
}

// TestNoLineEnds: a claim cannot bring a header of its own along.
func TestNoLineEnds(t *testing.T) {
	f, err := build(t, `"providers": {"p": {`+local+`, "claim_to_headers": [{"header_name": "x-sub", "claim_name": "sub"}]}},
		"rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}]`, stats.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	s, _, denied := ask(f, "GET /", "authorization: Bearer "+token(`{"sub":"me\r\nx-admin: yes"}`))
	if denied != "" || len(s.Request.Headers.Fields) != 0 {
		t.Errorf("%q, headers %q", denied, s.Request.Headers.Fields)
	}
}

// TestRules: by match, by route, by filter state.
func TestRules(t *testing.T) {
	f, err := build(t, `"providers": {"p": {"issuer": "i", `+local+`}, "q": {"issuer": "j", `+local+`, "from_cookies": ["ck"]}},
		"requirement_map": {"named": {"provider_name": "q"}}, "filter_state_rules": {"name": "who", "requires": {"q": {"provider_name": "q"}}}, "bypass_cors_preflight": true,
		"rules": [{"match": {"prefix": "/free"}}, {"match": {"prefix": "/p"}, "requires": {"provider_name": "p"}}, {"match": {"prefix": "/named"}, "requirement_name": "named"},
			{"match": {"prefix": "/opt"}, "requires": {"allow_missing": {}}}]`, stats.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	p, q := "authorization: Bearer "+token(`{"iss":"i"}`), "cookie: x=y; ck="+token(`{"iss":"j"}`)
	for _, c := range []struct {
		request string
		headers []string
		want    string
	}{
		{"GET /free", nil, ""}, {"GET /other", nil, ""},
		{"GET /p", nil, "401"}, {"GET /p", []string{p}, ""}, {"GET /p", []string{q}, "401"},
		{"GET /named", []string{q}, ""}, {"GET /named", []string{p}, "401"},
		{"GET /opt", nil, ""}, {"GET /opt", []string{p, q}, ""}, {"GET /opt", []string{"authorization: Bearer x"}, "401"},
		{"OPTIONS /p", []string{"origin: o", "access-control-request-method: GET"}, ""}, {"OPTIONS /p", []string{"origin: o"}, "401"},
	} {
		if _, _, got := ask(f, c.request, c.headers...); !strings.HasPrefix(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s %v: %q, want %q", c.request, c.headers, got, c.want)
		}
	}
	s := &http.Stream{}
	s.Info.SetState("who", "q")
	if f.find(s) != f.byState["q"] {
		t.Error("filter state decides nothing")
	}
}

func TestOverride(t *testing.T) {
	f, err := build(t, `"providers": {"p": {`+local+`}}, "requirement_map": {"r": {"provider_name": "p"}}, "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}]`, stats.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	for fields, want := range map[string]string{`"disabled": true`: "", `"requirement_name": "r"`: "401 jwt_authn_access_denied{Jwt_is_missing}",
		`"requirement_name": "x"`: "403 jwt_authn_access_denied{Wrong_requirement_name:_x._It_should_be_one_of_[r]} Failed JWT authentication: Wrong requirement_name: x. It should be one of [r]"} {
		o, err := unpack(t, routeURL, fields, func(a *anypb.Any) (any, error) { return newOverride(a, http.Env{}) })
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Stream{Request: http.Request{Method: []byte("GET"), Path: []byte("/"), Body: http.NoBody}}
		s.Begin(&control{}, 1, nil)
		s.SetOverrides(1, func(http.Slot) any { return o })
		f.OnRequest(s, 0)
		r, _ := s.TakeReply()
		got := strings.TrimPrefix(fmt.Sprintf("%d %s %s", r.Status, r.Details, r.Body), "0  ")
		if !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("%s: %q, want %q", fields, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	const remote = `"remote_jwks": {"http_uri": {"uri": "%s", "cluster": "c", "timeout": "1s"}%s}`
	for fields, want := range map[string]string{
		`"providers": {"p": {"local_jwks": {"inline_string": "x"}}}`:                                                                         `providers["p"].local_jwks: not JSON`,
		`"providers": {"p": {"local_jwks": {"filename": "/does/not/exist"}}}`:                                                                `providers["p"].local_jwks: open /does/not/exist`,
		`"providers": {"p": {` + fmt.Sprintf(remote, "nowhere", "") + `}}`:                                                                   `providers["p"].remote_jwks.http_uri.uri: invalid URI: 'nowhere'`,
		`"providers": {"p": {` + fmt.Sprintf(remote, "http://a/b", `, "retry_policy": {"retry_on": "5xx"}`) + `}}`:                           `remote_jwks.retry_policy.retry_on: not supported`,
		`"providers": {"p": {` + local + `, "claim_to_headers": [{"header_name": "a"}]}}`:                                                    `claim_to_headers[0].claim_name: exactly one of it and claim_path`,
		`"rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}]`:                                                          `rules[0].requires.provider_name: Required provider ['p'] is not configured.`,
		`"rules": [{"match": {"prefix": "/"}, "requirement_name": "r"}]`:                                                                     `rules[0].requirement_name: Wrong requirement_name: r. It should be one of []`,
		`"rules": [{"match": {"prefix": "/", "grpc": {}}}]`:                                                                                  `rules[0].match: grpc: not supported`,
		`"rules": [{"match": {"prefix": "/"}, "requires": {"extract_only_without_validation": {}}}]`:                                         `rules[0].requires.extract_only_without_validation: not supported`,
		`"requirement_map": {"m": {"requires_any": {"requirements": [{"allow_missing": {}}, {"provider_name": "p"}]}}}`:                      `requirement_map["m"].requires_any.requirements[1].provider_name`,
		`"requirement_map": {"m": ` + strings.Repeat(`{"requires_all": {"requirements": [{}, `, 40) + `{}` + strings.Repeat(`]}}`, 40) + `}`: "deeper than 32",
	} {
		if _, err := build(t, fields, stats.NewStore()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.90s: %v, want %q in it", fields, err, want)
		}
	}
}

// TestFile: keys of a file are read again when it changes; those that are not good leave the
// ones before in force.
func TestFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "keys")
		write := func(text string) {
			if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(file+".new", file); err != nil {
				t.Fatal(err)
			}
			time.Sleep(lookEvery + time.Millisecond)
			synctest.Wait()
		}
		good := strings.ReplaceAll(keys, `\`, "")
		if err := os.WriteFile(file, []byte(good), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := build(t, `"providers": {"p": {"local_jwks": {"filename": "`+file+`"}}}`, stats.NewStore())
		if err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		if f.Run(stop) != nil {
			t.Error("it is waited for")
		}
		s := f.providers["p"].keys
		first := s.current()
		write("not good")
		if s.current() != first {
			t.Error("keys that are not good are in force")
		}
		write(good)
		if s.current() == first {
			t.Error("the file was not read again")
		}
		close(stop)
	})
}

// A server answers fetches in the order that a test says.
type server struct {
	asked atomic.Int64
	fail  atomic.Bool
	delay time.Duration
}

func (x *server) ask(time.Duration) (*callout.Response, error) {
	time.Sleep(x.delay)
	x.asked.Add(1)
	if x.fail.Load() {
		return nil, errors.New("no answer")
	}
	return &callout.Response{Status: 200, Body: []byte(strings.ReplaceAll(keys, `\`, ""))}, nil
}

func remoteFilter(t *testing.T, more string) (*filter, *server) {
	t.Helper()
	f, err := build(t, `"providers": {"p": {"remote_jwks": {"http_uri": {"uri": "http://a/b", "cluster": "c", "timeout": "10s"}, "cache_duration": "60s"`+more+`}}},
		"rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}]`, stats.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	x := &server{}
	f.providers["p"].keys.remote.ask = x.ask
	return f, x
}

// TestFetchedOnDemand: the first request waits, others wait with it; keys that are too old are
// fetched again, and what failed is tried again with the next request: PO-007.
func TestFetchedOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, x := remoteFilter(t, "")
		x.delay = time.Second
		good := "authorization: Bearer " + token(`{}`)
		for range 5 {
			go func() {
				if _, _, denied := ask(f, "GET /", good); denied != "" {
					t.Error(denied)
				}
			}()
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		ask(f, "GET /", good)
		if x.asked.Load() != 1 {
			t.Errorf("fetched %d times", x.asked.Load())
		}
		time.Sleep(time.Minute)
		x.fail.Store(true)
		for range 2 {
			if _, _, denied := ask(f, "GET /", good); !strings.Contains(denied, jwt.FetchFailed.String()) {
				t.Errorf("keys of a minute ago: %q", denied)
			}
		}
		if x.asked.Load() != 3 {
			t.Errorf("fetched %d times", x.asked.Load())
		}
	})
}

// TestFetchedAhead: the listener waits for the first fetch; keys are fetched again before they
// are too old, sooner where that failed, and stay in force meanwhile.
func TestFetchedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, x := remoteFilter(t, `, "async_fetch": {"failed_refetch_duration": "2s"}`)
		x.delay = time.Second
		stop := make(chan struct{})
		begun := time.Now()
		<-f.Run(stop)
		if d := time.Since(begun); d != time.Second {
			t.Errorf("warm after %v", d)
		}
		x.fail.Store(true)
		time.Sleep(55*time.Second + 2*time.Second) // one fetch, which fails, and a pause that is not over
		if x.asked.Load() != 2 {
			t.Errorf("fetched %d times", x.asked.Load())
		}
		time.Sleep(10 * time.Minute)
		if _, _, denied := ask(f, "GET /", "authorization: Bearer "+token(`{}`)); denied != "" {
			t.Error(denied)
		}
		close(stop)
		synctest.Wait()
		asked := x.asked.Load()
		time.Sleep(time.Minute)
		if x.asked.Load() != asked {
			t.Error("fetched after the end")
		}
	})
}

func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, x := remoteFilter(t, `, "retry_policy": {"num_retries": 3, "retry_back_off": {"base_interval": "0.1s", "max_interval": "0.2s"}}`)
		x.fail.Store(true)
		ask(f, "GET /", "authorization: Bearer "+token(`{}`))
		if x.asked.Load() != 4 {
			t.Errorf("asked %d times", x.asked.Load())
		}
	})
}

// TestCache: a token is verified once, but looked at each time; other keys make it unknown.
func TestCache(t *testing.T) {
	store := stats.NewStore()
	f, err := build(t, `"providers": {"p": {`+local+`, "jwt_cache_config": {"jwt_cache_size": 2, "jwt_max_token_size": 200}}}, "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}]`, store)
	if err != nil {
		t.Fatal(err)
	}
	hits := store.Scope("http.x.").Counter("jwt_authn.jwt_cache_hit")
	for i, c := range []struct {
		claims string
		hits   uint64
	}{
		{`{"sub":"a"}`, 0}, {`{"sub":"a"}`, 1}, {`{"sub":"b"}`, 1}, {`{"sub":"c"}`, 1}, {`{"sub":"a"}`, 1}, {`{"sub":"c"}`, 2},
		{`{"sub":"` + strings.Repeat("long", 50) + `"}`, 2}, {`{"sub":"` + strings.Repeat("long", 50) + `"}`, 2},
	} {
		if _, _, denied := ask(f, "GET /", "authorization: Bearer "+token(c.claims)); denied != "" || hits.Value() != c.hits {
			t.Errorf("%d: %q, %d hits, want %d", i, denied, hits.Value(), c.hits)
		}
	}
	s := f.providers["p"].keys
	if err := s.take([]byte(strings.ReplaceAll(keys, `\`, ""))); err != nil {
		t.Fatal(err)
	}
	if ask(f, "GET /", "authorization: Bearer "+token(`{"sub":"c"}`)); hits.Value() != 2 {
		t.Error("a token is remembered beyond its keys")
	}
}

// TestExplained: a request that is only explained fetches nothing.
func TestExplained(t *testing.T) {
	f, x := remoteFilter(t, "")
	s := &http.Stream{Request: http.Request{Method: []byte("GET"), Path: []byte("/"), Body: http.NoBody}}
	s.Begin(&control{}, 1, nil)
	s.Request.Headers.Add([]byte("authorization"), []byte("Bearer "+token(`{}`)))
	said := ""
	s.Tell = func(what string) { said = what }
	if f.OnRequest(s, 0) != http.Continue || x.asked.Load() != 0 || !strings.Contains(said, "http://a/b") {
		t.Errorf("asked %d times, said %q", x.asked.Load(), said)
	}
}
