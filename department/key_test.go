package department

import (
	"bytes"
	"errors"
	"image"
	"image/png"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/approval"
	"guichet/internal/id"
)

func TestALiveKeyWorksOnceASecondPersonAgreed(t *testing.T) {
	s, d := newTown(t)
	propose := func() (secret, approvalID string) {
		s.do(t, func(tx pgx.Tx) (err error) {
			secret, approvalID, err = s.ProposeKey(t.Context(), tx, d.ID, "permit system", "live", "ann")
			return err
		})
		return secret, approvalID
	}
	decide := func(approvalID, by, decision string) error {
		return pgx.BeginFunc(t.Context(), s.db, func(tx pgx.Tx) error {
			return s.DecideKey(t.Context(), tx, approval.Decision{ID: approvalID, By: by, At: time.Now().Add(time.Hour)}, decision)
		})
	}
	works := func(secret string) bool {
		_, err := s.Authenticate(t.Context(), secret)
		return err == nil
	}
	first, waits := propose()
	if works(first) {
		t.Error("a proposed key works")
	}
	if err := decide(waits, "ann", approval.Approved); !errors.Is(err, approval.ErrSamePerson) || works(first) {
		t.Errorf("who proposed it approves: %v", err)
	}
	if _, err := s.db.Exec(t.Context(), `update department.api_key set name = 'something else'`); err == nil {
		t.Error("what is to be approved can be changed in between")
	}
	if err := decide(waits, "ben", approval.Approved); err != nil || !works(first) {
		t.Fatalf("approved: %v", err)
	}
	second, waits := propose()
	if err := decide(waits, "ben", approval.Refused); err != nil || works(second) {
		t.Errorf("refused: %v", err)
	}
	keys, err := s.Keys(t.Context(), s.db, d.ID)
	if err != nil || len(keys) != 2 || keys[0].State != "active" || keys[1].State != "refused" {
		t.Fatalf("%+v, %v", keys, err)
	}
	revoke := func(departmentID, keyID string) error {
		return pgx.BeginFunc(t.Context(), s.db, func(tx pgx.Tx) error { return s.RevokeKey(t.Context(), tx, departmentID, keyID) })
	}
	for _, departmentID := range []string{id.New(), d.ID, d.ID} {
		if err := revoke(departmentID, keys[0].ID); departmentID != d.ID && (!errors.Is(err, ErrNoKey) || !works(first)) || departmentID == d.ID && err != nil {
			t.Errorf("revoke: %v", err)
		}
	}
	if works(first) {
		t.Error("a revoked key works")
	}
	if err := revoke(d.ID, "x"); !errors.Is(err, ErrNoKey) {
		t.Errorf("no key: %v", err)
	}
}

func TestBrandingIsReadableAndHarmless(t *testing.T) {
	s, d := newTown(t)
	picture := func(side int) []byte {
		var b bytes.Buffer
		if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, side, side))); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	good := Branding{Colour: "#0f3d4c", Logo: picture(64), LogoEN: "Parking", LogoFR: "Stationnement"}
	change := func(f func(*Branding)) Branding { b := good; f(&b); return b }
	for name, c := range map[string]struct {
		b    Branding
		want error
	}{
		"good":                {good, nil},
		"no logo":             {Branding{Colour: "#000000"}, nil},
		"no colour":           {change(func(b *Branding) { b.Colour = "" }), ErrColour},
		"a colour with CSS":   {change(func(b *Branding) { b.Colour = "#000;x:y" }), ErrColour},
		"capital digits":      {change(func(b *Branding) { b.Colour = "#0F3D4C" }), ErrColour},
		"too light":           {change(func(b *Branding) { b.Colour = "#888888" }), ErrContrast},
		"SVG":                 {change(func(b *Branding) { b.Logo = []byte("<svg xmlns='http://www.w3.org/2000/svg'/>") }), ErrLogo},
		"GIF":                 {change(func(b *Branding) { b.Logo = []byte("GIF89a\x01\x00\x01\x00\x00\x00\x00") }), ErrLogo},
		"too wide":            {change(func(b *Branding) { b.Logo = picture(1201) }), ErrLogo},
		"too many bytes":      {change(func(b *Branding) { b.Logo = append(picture(8), make([]byte, MaxLogo)...) }), ErrLogo},
		"a logo without text": {change(func(b *Branding) { b.LogoFR = "" }), ErrLogoText},
	} {
		err := pgx.BeginFunc(t.Context(), s.db, func(tx pgx.Tx) error { return s.SetBranding(t.Context(), tx, d.ID, c.b) })
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	s.do(t, func(tx pgx.Tx) error { return s.SetBranding(t.Context(), tx, d.ID, good) })
	b, err := s.Branding(t.Context(), d.ID)
	if err != nil || b.LogoType != "image/png" || !bytes.Equal(b.Logo, good.Logo) || b.Colour != good.Colour {
		t.Errorf("%+v, %v", b, err)
	}
	if b, err := s.Branding(t.Context(), id.New()); err != nil || b.Colour != "" {
		t.Errorf("nobody's: %+v, %v", b, err)
	}
}
