"""Titles that name the same recording."""

# The end of a title that marks another issue of the same recording: "- 2012 Remaster", "(Remastered Version)",
# "; Remasterizado en 2009", '(From "Frozen")'. Written so that Python's re and RE2 (Arrow) read it alike.
ISSUE = (
    r"(?i)\s*[-–(\[;/,]\s*(?:\d{4}\s+)?(?:digital(?:ly)?\s+|versi[oó]n\s+|vers[aã]o\s+)?remast[eé]r[a-zé]*"
    r"(?:\s+(?:album\s+|lp\s+)?version)?(?:(?:\s+(?:in|en|em))?[\s/]+\d{4})?\s*[)\]]?\s*$"
    r"|\s*[-–(\[]\s*from\s+[\"“][^\"”]+[\"”]\s*[)\]]?\s*$"
)
