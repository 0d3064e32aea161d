package rotation

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/test/fixture"
)

// lives has agents ask for certificates of a life, and renew them after the time that renewal
// says, of what is left of them by the clock here.
func lives(asked, left time.Duration) []string {
	return []string{"SECRET_TTL=" + asked.String(), "SECRET_GRACE_PERIOD_RATIO_JITTER=0.0001",
		fmt.Sprintf("SECRET_GRACE_PERIOD_RATIO=%g", 1-renewal.Seconds()/left.Seconds())}
}

// Certificates and roots change while requests of all kinds are made, and nobody notices.
func TestRotation(t *testing.T) {
	t.Run("SX-002 SX-004 certificates are renewed and roots replaced: no request and no handshake fails", rotate)
}

func rotate(t *testing.T) {
	m := start(t, 0, lives(life, life)...)
	l := m.load()
	began := time.Now()
	for round := range *roots {
		before := m.trusted()
		for _, phase := range phases {
			m.step(phase, l)
		}
		if after := m.trusted(); len(before) != 1 || len(after) != 1 || before[0] == after[0] {
			t.Errorf("rotation %d: trusted were %v, are %v", round+1, before, after)
		}
		m.renewed((round + 1) * *certificates / *roots)
	}
	if *roots == 0 {
		m.renewed(*certificates)
	}
	l.report(t)
	for _, p := range m.members {
		t.Logf("%s: %d certificates in %s", p.name, len(p.serials), time.Since(began).Round(time.Second))
	}
}

// The control plane is away with its authority, and all agents are restarted with their proxies
// meanwhile.
func TestAway(t *testing.T) {
	environment := lives(life, life)
	m := start(t, 0, environment...)
	before, stopped := m.load(), time.Now()
	before.more(int64(*rate) / 3)
	m.stop()
	before.more(int64(*rate) / 3)
	if *away {
		m.pass(before, stopped.Add((life-margin)/2))
	}
	before.report(t)
	for _, p := range m.members {
		p.process.Kill()
	}
	for _, p := range m.members {
		p.start(environment)
	}
	m.warm()
	after := m.load()
	after.more(int64(*rate) / 3)
	if *away {
		m.pass(after, stopped.Add(life-margin))
	}
	t.Logf("the authority was away for %s", time.Since(stopped).Round(time.Second))
	m.control()
	for _, p := range m.members {
		clear(p.serials)
	}
	m.renewed(2)
	m.settle()
	after.more(int64(*rate) / 3)
	after.report(t)
}

// pass goes on with a load until a point in time.
func (m *mesh) pass(l *load, until time.Time) {
	for time.Now().Before(until) {
		l.more(int64(*rate))
	}
}

// The authority's clock is apart from those of the workloads, which renew their certificates and
// follow a new root all the same.
func TestClocks(t *testing.T) {
	for _, tt := range []struct {
		clock, asked, left time.Duration
	}{
		{-10 * time.Minute, 10*time.Minute + life, life},
		{10 * time.Minute, life, 10*time.Minute + life},
	} {
		t.Run("SX-002 SX-004 the authority's clock is "+tt.clock.String()+" apart", func(t *testing.T) {
			m := start(t, tt.clock, lives(tt.asked, tt.left)...)
			l := m.load()
			m.renewed(2)
			for _, phase := range phases {
				m.step(phase, l)
			}
			m.renewed(4)
			l.report(t)
		})
	}
}

// phases are those of a rotation, after each of which there is a step.
var phases = []string{"settled", "trusting", "signing"}

// trusted are the fingerprints of the mesh's roots.
func (m *mesh) trusted() (all []string) {
	m.t.Helper()
	var page struct {
		Authority struct {
			Roots []struct{ Fingerprint string }
		}
	}
	if err := m.page(http.MethodGet, "ca", &page); err != nil {
		m.t.Fatal(err)
	}
	for _, r := range page.Authority.Roots {
		all = append(all, r.Fingerprint)
	}
	return all
}

// step takes the step of a rotation that follows a phase, and waits for the proofs of all. They are
// of handshakes that begin then: those that are under way, with what was trusted before, may see
// nothing of the step that follows.
func (m *mesh) step(after string, l *load) {
	m.t.Helper()
	var page struct {
		Told   bool
		Proofs []struct{ ID, Missing string }
	}
	fixture.Eventually(m.t, "the step after "+after, func() error { return m.page(http.MethodPost, "ca?after="+after, &page) })
	fixture.Eventually(m.t, "the proofs of the step after "+after, func() error {
		err := m.page(http.MethodGet, "ca?timeout=10s", &page)
		if err == nil && (!page.Told || len(page.Proofs) != len(m.members) || slices.ContainsFunc(page.Proofs, func(p struct{ ID, Missing string }) bool { return p.Missing != "" })) {
			err = fmt.Errorf("%+v", page)
		}
		return err
	})
	l.passed()
}

// renewed waits until each proxy has had so many certificates after its first.
func (m *mesh) renewed(n int) {
	m.t.Helper()
	for again := true; again; {
		again = false
		for _, p := range m.members {
			fixture.Eventually(m.t, "the next certificate of "+p.name, func() error {
				fresh, err := p.look()
				if err == nil && !fresh && len(p.serials) <= n {
					err = errors.New("it is the same still")
				}
				return err
			})
			again = again || len(p.serials) <= n
		}
	}
}

// look notes the certificate that the member's proxy has; it reports whether it is a new one.
func (p *member) look() (fresh bool, err error) {
	text, err := p.admin("/certs")
	if err != nil {
		return false, err
	}
	var page struct {
		Certificates []struct {
			Chain []struct {
				Serial string `json:"serial_number"`
			} `json:"cert_chain"`
		}
	}
	if err := json.Unmarshal([]byte(text), &page); err != nil {
		return false, err
	}
	for _, c := range page.Certificates {
		for _, one := range c.Chain {
			fresh = fresh || !p.serials[one.Serial]
			p.serials[one.Serial] = true
		}
	}
	return fresh, nil
}
