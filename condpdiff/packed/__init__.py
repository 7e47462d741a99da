"""A trained generator as one folder, and what it makes: used outside the repository, without DVC."""
