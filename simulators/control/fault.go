package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Kind is a sort of trouble a simulator can make.
type Kind struct {
	Name string `json:"name"`
	Does string `json:"does"`
}

// A Fault is one planted trouble.
type Fault struct {
	Kind   string   `json:"kind"`
	Target string   `json:"target,omitempty"` // whom it hits (the simulator says what that is); empty: everyone
	Times  int      `json:"times"`            // strikes left; -1: until cleared
	Every  int      `json:"every"`            // strikes only every n-th time; 1: every time
	Delay  Duration `json:"delay,omitzero"`
	Seen   int      `json:"seen"` // opportunities so far
}

// A Duration is written as Go writes it: "1.5s", "48h".
type Duration time.Duration

func (d Duration) String() string               { return time.Duration(d).String() }
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err == nil && v < 0 {
		err = fmt.Errorf("negative duration %s", b)
	}
	*d = Duration(v)
	return err
}

// maxPlanted bounds the list of faults: more is a mistake in a script.
const maxPlanted = 1000

// Faults are the troubles planted in one simulator. They are kept in a file of
// its directory, so a kill -9 does not heal it.
type Faults struct {
	path  string
	kinds []Kind
	log   *slog.Logger

	mu      sync.Mutex
	planted []Fault
}

// OpenFaults reads the faults planted in dir by an earlier process.
func OpenFaults(dir string, log *slog.Logger, kinds ...Kind) (*Faults, error) {
	f := &Faults{path: filepath.Join(dir, "faults.json"), kinds: kinds, log: log, planted: []Fault{}}
	b, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &f.planted)
	}
	if err != nil {
		return nil, fmt.Errorf("read faults: %w", err)
	}
	return f, nil
}

// Plant adds a fault. Times 0 means once, Every 0 means every time.
func (f *Faults) Plant(x Fault) (Fault, error) {
	if !slices.ContainsFunc(f.kinds, func(k Kind) bool { return k.Name == x.Kind }) {
		return Fault{}, fmt.Errorf("unknown kind of fault %q", x.Kind)
	}
	if x.Times < -1 || x.Every < 0 || x.Delay < 0 {
		return Fault{}, fmt.Errorf("fault %s: times, every and delay must not be negative (times -1: until cleared)", x.Kind)
	}
	x.Times, x.Every, x.Seen = orOne(x.Times), orOne(x.Every), 0
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.planted) >= maxPlanted {
		return Fault{}, fmt.Errorf("fault %s: %d faults are planted already", x.Kind, maxPlanted)
	}
	f.planted = append(f.planted, x)
	if err := f.save(); err != nil {
		return Fault{}, err
	}
	return x, nil
}

func orOne(n int) int {
	if n == 0 {
		return 1
	}
	return n
}

// Clear removes all faults.
func (f *Faults) Clear() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.planted = []Fault{}
	return f.save()
}

// Planted lists the faults that can still strike, oldest first.
func (f *Faults) Planted() []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.planted)
}

// Kinds lists what can be planted.
func (f *Faults) Kinds() []Kind { return f.kinds }

// Strike asks whether a fault of the kind hits target now, and uses it up. The
// oldest that fits wins.
func (f *Faults) Strike(kind, target string) (Fault, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.planted {
		x := &f.planted[i]
		if x.Kind != kind || (x.Target != "" && !strings.EqualFold(x.Target, target)) {
			continue
		}
		x.Seen++
		hit := x.Seen%x.Every == 0
		struck := *x
		if hit && x.Times > 0 {
			if x.Times--; x.Times == 0 {
				f.planted = slices.Delete(f.planted, i, i+1)
			}
		}
		if err := f.save(); err != nil {
			f.log.Error("save faults", "error", err) // it strikes all the same; only a kill would bring it back
		}
		if hit {
			return struck, true
		}
		return Fault{}, false
	}
	return Fault{}, false
}

// Hold waits when a fault "slow" hits target, until its delay is over or ctx is.
func (f *Faults) Hold(ctx context.Context, target string) {
	x, ok := f.Strike("slow", target)
	if !ok {
		return
	}
	timer := time.NewTimer(time.Duration(x.Delay))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (f *Faults) save() error {
	b, err := json.MarshalIndent(f.planted, "", "  ")
	if err != nil {
		return fmt.Errorf("save faults: %w", err)
	}
	if err := WriteFile(f.path, b, 0o600); err != nil {
		return fmt.Errorf("save faults: %w", err)
	}
	return nil
}

// Routes adds the control API of the faults:
//
//	GET    /_control/faults   {"kinds": […], "planted": […]}
//	POST   /_control/faults   {"kind", "target", "times", "every", "delay"} → 201
//	DELETE /_control/faults   → 204
//
// and the two forms of the panel "faults".
func (f *Faults) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /_control/faults", func(w http.ResponseWriter, r *http.Request) {
		JSON(w, http.StatusOK, map[string]any{"kinds": f.kinds, "planted": f.Planted()})
	})
	mux.HandleFunc("DELETE /_control/faults", func(w http.ResponseWriter, r *http.Request) {
		if err := f.Clear(); err != nil {
			Fail(w, http.StatusInternalServerError, "%v", err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /_control/faults", f.plant)
	mux.HandleFunc("POST /_control/faults/clear", func(w http.ResponseWriter, r *http.Request) {
		if err := f.Clear(); err != nil {
			Fail(w, http.StatusInternalServerError, "%v", err)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
}

func (f *Faults) plant(w http.ResponseWriter, r *http.Request) {
	var x Fault
	var err error
	if IsForm(r) {
		r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
		x, err = faultOf(r)
	} else {
		err = Decode(w, r, &x)
	}
	if err == nil {
		x, err = f.Plant(x)
	}
	switch {
	case err != nil:
		Fail(w, http.StatusUnprocessableEntity, "%v", err)
	case IsForm(r):
		http.Redirect(w, r, "/", http.StatusSeeOther)
	default:
		JSON(w, http.StatusCreated, x)
	}
}

// faultOf reads the form of the panel; empty fields are defaults.
func faultOf(r *http.Request) (Fault, error) {
	x := Fault{Kind: r.PostFormValue("kind"), Target: strings.TrimSpace(r.PostFormValue("target"))}
	for name, to := range map[string]*int{"times": &x.Times, "every": &x.Every} {
		if v := r.PostFormValue(name); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil {
				return Fault{}, fmt.Errorf("%s: want a whole number", name)
			}
			*to = n
		}
	}
	if v := r.PostFormValue("delay"); v != "" {
		if err := x.Delay.UnmarshalText([]byte(v)); err != nil {
			return Fault{}, err
		}
	}
	return x, nil
}
