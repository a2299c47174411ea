package department

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // the two kinds of logo that are taken
	_ "image/png"
	"math"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
)

// A Branding is how a department looks on the page where its residents sign in: a band of
// its colour and its logo. The page stays the city's.
type Branding struct {
	Colour         string // "#0f3d4c"
	Logo           []byte // PNG or JPEG; nil: none
	LogoType       string // media type of Logo
	LogoEN, LogoFR string // what the logo says, for those who do not see it
	ChangedAt      time.Time
}

// Limits of a logo.
const (
	MaxLogo     = 64 << 10 // bytes
	maxLogoSide = 1200     // pixels
)

// What a branding may be refused for.
var (
	ErrColour   = errors.New("colour: want # and six hexadecimal digits")
	ErrContrast = errors.New("colour: white text on it cannot be read (contrast below 4.5 to 1)")
	ErrLogo     = errors.New("logo: want a PNG or JPEG of at most 64 KiB and 1200 pixels a side")
	ErrLogoText = errors.New("logo: say in both languages what it shows")
)

var colourForm = regexp.MustCompile(`^#[0-9a-f]{6}$`)

// SetBranding stores a department's branding. All that is wrong comes as one error, made of
// the errors above.
func (s *Service) SetBranding(ctx context.Context, tx pgx.Tx, departmentID string, b Branding) error {
	if err := b.check(); err != nil {
		return fmt.Errorf("set branding: %w", err)
	}
	now := s.now()
	_, err := tx.Exec(ctx, `
		insert into department.branding (department_id, colour, logo, logo_type, logo_alt_en, logo_alt_fr, changed_at)
		values ($1, $2, $3, nullif($4, ''), $5, $6, $7)
		on conflict (department_id) do update set colour = $2, logo = $3, logo_type = nullif($4, ''), logo_alt_en = $5, logo_alt_fr = $6, changed_at = $7`,
		departmentID, b.Colour, b.Logo, b.LogoType, b.LogoEN, b.LogoFR, now)
	if err != nil {
		return fmt.Errorf("set branding: %w", err)
	}
	return audit.Record(ctx, tx, audit.Event{
		Action: "department.branded", ObjectType: "department", ObjectID: departmentID, At: now,
		Details: map[string]any{"colour": b.Colour, "logo": len(b.Logo)},
	})
}

// check also finds out LogoType: what a browser is told must be what the bytes are.
func (b *Branding) check() error {
	var faults []error
	switch contrast, ok := contrastWithWhite(b.Colour); {
	case !ok:
		faults = append(faults, ErrColour)
	case contrast < 4.5: // WCAG 2.2, 1.4.3
		faults = append(faults, ErrContrast)
	}
	b.LogoType = ""
	if b.Logo != nil {
		c, kind, err := image.DecodeConfig(bytes.NewReader(b.Logo))
		if err != nil || len(b.Logo) > MaxLogo || c.Width > maxLogoSide || c.Height > maxLogoSide {
			faults = append(faults, ErrLogo)
		}
		b.LogoType = "image/" + kind
		if b.LogoEN == "" || b.LogoFR == "" {
			faults = append(faults, ErrLogoText)
		}
	}
	return errors.Join(faults...)
}

// contrastWithWhite is the contrast ratio of WCAG 2.2 between a colour and white.
func contrastWithWhite(colour string) (float64, bool) {
	if !colourForm.MatchString(colour) {
		return 0, false
	}
	n, err := strconv.ParseUint(colour[1:], 16, 32)
	if err != nil {
		return 0, false
	}
	linear := func(shift uint) float64 {
		v := float64(n>>shift&0xff) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	luminance := 0.2126*linear(16) + 0.7152*linear(8) + 0.0722*linear(0)
	return 1.05 / (luminance + 0.05), true
}

// Branding reads a department's branding; without one the zero value.
func (s *Service) Branding(ctx context.Context, departmentID string) (Branding, error) {
	var b Branding
	err := s.db.QueryRow(ctx, `
		select colour, logo, coalesce(logo_type, ''), logo_alt_en, logo_alt_fr, changed_at from department.branding where department_id = $1`, departmentID).
		Scan(&b.Colour, &b.Logo, &b.LogoType, &b.LogoEN, &b.LogoFR, &b.ChangedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return Branding{}, nil
	}
	if err != nil {
		return Branding{}, fmt.Errorf("read branding: %w", err)
	}
	return b, nil
}
