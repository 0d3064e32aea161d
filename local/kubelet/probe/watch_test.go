package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// watched runs a watch for a time in a bubble and returns what was told, each with its second.
func watched(t *testing.T, w Watch, wellAt func(time.Duration) bool, d time.Duration) (told []string, asked int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		tell := func(what string) { told = append(told, fmt.Sprintf("%s %s", time.Since(begun), what)) }
		w.Ask = func(context.Context) error {
			asked++
			if wellAt(time.Since(begun)) {
				return nil
			}
			return errors.New("unwell")
		}
		w.Unwell = func(err error) { tell(err.Error()) }
		w.Changed = func(ok bool) { tell(fmt.Sprint(ok)) }
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		w.Run(ctx)
	})
	return told, asked
}

func TestWatch(t *testing.T) {
	always := func(ok bool) func(time.Duration) bool { return func(time.Duration) bool { return ok } }
	from := func(at time.Duration) func(time.Duration) bool {
		return func(now time.Duration) bool { return now >= at }
	}
	for _, c := range []struct {
		name  string
		watch Watch
		well  func(time.Duration) bool
		told  []string
	}{
		{"a readiness probe without delay asks at once", Watch{Hurry: true, Probe: &corev1.Probe{PeriodSeconds: 10}}, always(true), []string{"0s true"}},
		{"failures count at the period only", Watch{Hurry: true, Probe: &corev1.Probe{PeriodSeconds: 10, FailureThreshold: 2}}, always(false),
			[]string{"10s unwell", "20s unwell", "20s false", "30s unwell"}},
		{"success is seen soon", Watch{Hurry: true, Probe: &corev1.Probe{PeriodSeconds: 10}}, from(100 * time.Millisecond), []string{"100ms true"}},
		{"a delay is kept", Watch{Hurry: true, Probe: &corev1.Probe{InitialDelaySeconds: 5, PeriodSeconds: 10}}, always(true), []string{"5s true"}},
		{"liveness asks at its period from the start", Watch{Probe: &corev1.Probe{PeriodSeconds: 10, FailureThreshold: 3}}, always(false),
			[]string{"0s unwell", "10s unwell", "20s unwell", "20s false", "30s unwell"}},
		{"several successes are counted", Watch{Probe: &corev1.Probe{PeriodSeconds: 10, SuccessThreshold: 3}}, always(true), []string{"20s true"}},
		{"a probe that fails and comes back", Watch{Probe: &corev1.Probe{PeriodSeconds: 10}}, func(now time.Duration) bool { return now != 10*time.Second },
			[]string{"0s true", "10s unwell", "10s false", "20s true"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if told, _ := watched(t, c.watch, c.well, 35*time.Second); !slices.Equal(told, c.told) {
				t.Errorf("told %q, not %q", told, c.told)
			}
		})
	}
}

func TestHurryIsBounded(t *testing.T) {
	_, asked := watched(t, Watch{Hurry: true, Probe: &corev1.Probe{PeriodSeconds: 10}}, func(time.Duration) bool { return false }, time.Hour)
	if most := 3600/10 + 40; asked > most {
		t.Errorf("%d questions in an hour, more than %d", asked, most)
	}
}
