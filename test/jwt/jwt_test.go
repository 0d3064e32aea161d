package jwt

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSameAsEnvoy sends requests with tokens of all kinds, good, bad and in several places at
// once, to both proxies: PO-005 PO-006 PO-009 SX-017 SX-018.
func TestSameAsEnvoy(t *testing.T) {
	ours, envoy := binaries(t)
	keys := newKeychain(t)
	configs := filters(keys)
	upstream, remote := backend(t), issuer(t, keys.loose())
	peers := []*peer{start(t, "envoy", envoy, configs, upstream, remote), start(t, "ours", ours, configs, upstream, remote)}
	start := *seed
	if start == 0 {
		start = rand.Uint64()
	}
	t.Logf("seed %d", start)
	const workers = 4
	var wg sync.WaitGroup
	var tally sync.Map
	for w := range workers {
		wg.Go(func() {
			m := &maker{rand.New(rand.NewPCG(start, uint64(w))), keys}
			m.compare(t, peers, len(configs), *requests/workers, &tally)
		})
	}
	wg.Wait()
	if diff := cmp.Diff(peers[0].counters(t), peers[1].counters(t)); diff != "" {
		t.Errorf("counters (-envoy +ours):\n%s", diff)
	}
	tally.Range(func(what, n any) bool {
		t.Logf("%7d  %s", n.(*atomic.Int64).Load(), what)
		return true
	})
}

// maxFailures is how many differences a worker reports.
const maxFailures = 5

func (m *maker) compare(t *testing.T, peers []*peer, listeners, n int, tally *sync.Map) {
	lines := make([][]*line, listeners)
	for i := range lines {
		for _, p := range peers {
			lines[i] = append(lines[i], p.line(i))
		}
		defer lines[i][0].close()
		defer lines[i][1].close()
	}
	for failures := 0; n > 0 && failures < maxFailures; n-- {
		i := min(m.IntN(listeners+2), listeners+1) % listeners // the first one more often
		request := m.request()
		var got [2]string
		for k, l := range lines[i] {
			var err error
			if got[k], err = l.send(request); err != nil {
				l.close()
				got[k] = "error: " + err.Error()
			}
		}
		if got[0] != got[1] {
			failures++
			t.Errorf("listener %d: ours differs from Envoy (-envoy +ours):\n%s\nrequest:\n%q", i, cmp.Diff(got[0], got[1]), request)
		}
		count(tally, got[0])
	}
}

// count notes what Envoy has said.
func count(tally *sync.Map, said string) {
	lines := strings.Split(said, "\n")
	what := lines[0]
	if !strings.HasPrefix(what, "200") {
		for _, l := range lines[1:] {
			if text, ok := strings.CutPrefix(l, "x-details: "); ok {
				what += " " + text
			}
		}
	}
	n, _ := tally.LoadOrStore(what, &atomic.Int64{})
	n.(*atomic.Int64).Add(1)
}

// request makes one, with none, one or several tokens.
func (m *maker) request() string {
	method, path := "GET", pick(m, paths...)
	var query, headers, cookies []string
	if m.chance(50) {
		path = m.fitting(&query, &headers, &cookies)
	} else {
		for range pick(m, 0, 1, 1, 1, 2, 2, 3) {
			m.place(m.token(pick(m, keyNames...), ""), &query, &headers, &cookies)
		}
	}
	if m.chance(10) {
		query = append(query, pick(m, "z=1", "a=b", "a", "=", "&", "a=b%41", "tok", "b=c+d"))
	}
	for _, h := range []string{"x-payload: forged", "x-claim-sub: admin", "x-claim-num: 1", "x-payload-padded: forged", "x-second: 1", "x-envoy-original-path: /before?x"} {
		if m.chance(5) {
			headers = append(headers, h)
		}
	}
	if m.chance(3) {
		method = "OPTIONS"
		headers = append(headers, "origin: http://a.test")
		if m.chance(70) {
			headers = append(headers, "access-control-request-method: "+pick(m, "GET", ""))
		}
	}
	if m.chance(2) {
		headers = append(headers, "content-type: application/grpc")
	}
	if len(cookies) > 0 {
		headers = append(headers, "cookie: "+strings.Join(cookies, pick(m, "; ", ";")))
	}
	if len(query) > 0 {
		path += "?" + strings.Join(query, "&")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nhost: %s\r\n", method, path, pick(m, "a.test", "a.test:8080", "B.test"))
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// fitting puts a token where its provider looks for it, and says for which path.
func (m *maker) fitting(query, headers, cookies *[]string) (path string) {
	rs, es := pick(m, "rsa1", "rsa2"), pick(m, "ec256", "ec384", "ec521")
	switch m.IntN(8) {
	case 0:
		*headers = append(*headers, "authorization: Bearer "+m.token(rs, "iss-rs"))
		return pick(m, "/rs", "/aud", "/any", "/named", "/anymiss", "/nest", "/opt", "/lax")
	case 1:
		*headers = append(*headers, pick(m, "x-tok: ", "x-pre: Pre ")+m.token(es, "iss-es"))
		return pick(m, "/es", "/any", "/fail", "/opt", "/lax")
	case 2:
		*query = append(*query, "z=1")
		*cookies = append(*cookies, pick(m, "ck=", "other=")+m.token("oct", "iss-hs"))
		*headers = append(*headers, "x-second: 1")
		return pick(m, "/h", "/hs", "/es/q", "/second", "/any", "/nest", "/opt", "/fail")
	case 3:
		*query = append(*query, "ed="+url.QueryEscape(m.token("ed", "")))
		return pick(m, "/ed/x", "/opt", "/lax")
	case 4:
		*headers = append(*headers, "authorization: Bearer "+m.token(pick(m, keyNames...), "iss-loose"))
		return pick(m, "/loose", "/named", "/opt", "/lax", "/both")
	case 5:
		*headers = append(*headers, "x-fetched: "+m.token(pick(m, keyNames...), "iss-fetched"))
		return "/fetched"
	case 6:
		*headers = append(*headers, "x-ahead: "+m.token(pick(m, keyNames...), "iss-ahead"))
		return "/ahead"
	}
	*headers = append(*headers, "authorization: Bearer "+m.token(rs, "iss-rs"), "x-tok: "+m.token(es, "iss-es"))
	return pick(m, "/all", "/nest", "/anymiss", "/opt", "/lax", "/fail")
}

// place puts a token somewhere.
func (m *maker) place(token string, query, headers, cookies *[]string) {
	switch m.IntN(12) {
	case 0, 1, 2, 3:
		*headers = append(*headers, "authorization: "+pick(m, "Bearer ", "Bearer ", "Bearer ", "Bearer ", "Bearer  ", "bearer ", "", "Basic ", "Bearer", "x Bearer ", "Bearer \"", "Bearer ,")+token)
	case 4, 5:
		*headers = append(*headers, pick(m, "x-tok: ", "x-tok: ", "X-Tok: ", "x-tok: T ", "x-pre: Pre ", "x-pre: Pre  \"", "x-pre: ")+token)
	case 6:
		*headers = append(*headers, pick(m, "x-bad: ", "x-fetched: ", "x-ahead: ", "x-lost: ")+token)
	case 7, 8:
		name := pick(m, "access_token", "tok", "tok", "ed", "access%5ftoken", "to%7ek")
		if m.chance(50) {
			token = url.QueryEscape(token)
		} else {
			token = strings.NewReplacer(" ", "", "\t", "", "&", "").Replace(token)
		}
		*query = append(*query, name+"="+token)
	case 9:
		*cookies = append(*cookies, pick(m, "ck", "other", " ck", "CK", "no")+"="+pick(m, token, `"`+token+`"`))
	case 10:
		*headers = append(*headers, "authorization: Bearer "+token, pick(m, "authorization: Bearer ", "x-tok: ", "Authorization: ")+token)
	default:
		*query = append(*query, "access_token="+token, "tok="+token)
	}
}
