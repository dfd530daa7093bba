"""x"""

from fastapi import APIRouter

router = APIRouter(prefix="/api/costs", tags=["costs"])
